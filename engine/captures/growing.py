"""Captures that another process is still writing: what a live engine reads of the spool.

A record batch is taken when it is whole. What is not whole yet is looked at again later; once
nothing more is written, it is damage: it is reported and left out, and what comes behind it is
kept.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.captures.format import (
    CAPTURE_SCHEMA,
    CAPTURE_SUFFIX,
    DAMAGE,
    CaptureBatch,
    CapturePosition,
    captures_in,
    next_batch,
    open_capture,
    open_digesting,
)
from framewalk.engine.closing import Closing
from framewalk.engine.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from framewalk.engine.captures.format import DigestingFile, Place

# Every message of an Arrow IPC stream begins with this, at a multiple of eight bytes.
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_ALIGNMENT_BYTES: Final = 8
END_MARKER: Final = _CONTINUATION + b"\0\0\0\0"
_SCHEMA_MESSAGE: Final = CAPTURE_SCHEMA.serialize().to_pybytes()
_READ_BYTES: Final = 1 << 20
_SEGMENT_NAME: Final = re.compile(rf"[0-9]{{20}}{re.escape(CAPTURE_SUFFIX)}")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a capture that hold no readable record batch; `position` is right after them."""

    path: Path
    offset_bytes: int
    size_bytes: int
    position: CapturePosition

    def __str__(self) -> str:
        """Say what was left out."""
        return (
            f"{self.path}: {self.size_bytes:,} bytes from byte {self.offset_bytes:,} on are torn "
            "or damaged; what they held is left out, the rest is kept"
        )


def segments_in(folder: Path) -> list[Path]:
    """Return the segments of a spool, the oldest first: each is named by a time in ns."""
    return [path for path in captures_in(folder) if is_segment(path)]


def is_segment(path: Path) -> bool:
    """Tell whether a file is named as segments of a spool are."""
    return _SEGMENT_NAME.fullmatch(path.name) is not None


class GrowingCapture(Closing):
    """Reads a capture of CAPTURE_SCHEMA from `known` on, or from its start, as it grows.

    Each record batch must carry its digest (`batch_digest`), as those of the spool do.
    `has_ended` is true once the end marker was read.

    Raises CaptureError where the file cannot be read.
    """

    def __init__(self, path: Path, known: CapturePosition | None = None) -> None:
        self.path = path
        self.has_ended = False
        self.is_stuck = False
        self._messages = 0
        self._file = open_digesting(path)
        if known is not None:
            self._skip(known)

    @property
    def position(self) -> CapturePosition:
        """The end of what was read."""
        return CapturePosition(self._file.offset_bytes, self._messages, self._file.digest())

    @property
    def unread_bytes(self) -> int:
        """The size of what is in the file and was not read."""
        return self._file.unread_bytes

    def read(self, *, is_complete: bool) -> Iterator[CaptureBatch | Damage]:
        """Yield the record batches that have become whole since the last call, and damage.

        With `is_complete` nothing more is written: what is not whole now is damage as well.
        What is written while this goes on is left for the next call, so it comes to an end.
        `is_stuck` then tells whether something is in the way that is not whole yet.
        """
        end_bytes = self._file.offset_bytes + self.unread_bytes
        self.is_stuck = False
        while self._file.offset_bytes < end_bytes:
            is_start = not self._file.offset_bytes
            try:
                batch = self._next()
            except (*DAMAGE, CaptureError):
                self.is_stuck = not is_complete
                if self.is_stuck:
                    return
                yield self._pass_damage()
                continue
            if batch is None:
                self.has_ended = not is_start
                continue
            self._messages += batch.num_rows
            yield CaptureBatch(batch, self.position)

    def sync(self) -> None:
        """Force what is in the file to disk, so that nothing that was read can still be lost."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _skip(self, known: CapturePosition) -> None:
        while left := known.offset_bytes - self._file.offset_bytes:
            if not self._file.read(min(_READ_BYTES, left)):
                break
        self._messages = known.messages

    def _next(self) -> pa.RecordBatch | None:
        """Read one record batch; None for the schema and the end marker.

        Stays where it is and raises one of DAMAGE where there is none of them.
        """
        place = self._file.place()
        try:
            if not place.offset_bytes:
                open_capture(self.path, self._file)
                if not self._is_clean_end():
                    problem = "it does not end where a record batch begins"
                    raise pa.ArrowInvalid(problem)
                return None
            stream = pa.ipc.open_stream(_AfterSchema(self._file))
            batch = next_batch(stream, digest_required=True)
            if batch is None and self._file.offset_bytes - place.offset_bytes < len(END_MARKER):
                problem = "it ends within a marker"
                raise pa.ArrowInvalid(problem)
            if not self._is_clean_end():
                self._give_back(place)
        except (*DAMAGE, CaptureError):
            self._file.back_to(place)
            raise
        return batch

    def _is_clean_end(self) -> bool:
        """Tell whether what was read ends where something else begins, or the file does."""
        place = self._file.place()
        begin = self._file.read(len(_CONTINUATION))
        self._file.back_to(place)
        return not place.offset_bytes % _ALIGNMENT_BYTES and _CONTINUATION.startswith(begin)

    def _give_back(self, start: Place) -> None:
        """Go back to the first record batch that the one from `start` on has taken in.

        That one is as it was written, but its length may be damaged.
        """
        end_bytes = self._file.offset_bytes
        self._file.back_to(start)
        content = self._file.read()
        self._file.back_to(start)
        size_bytes = end_bytes - start.offset_bytes
        within = (at for at in _markers(content) if at < size_bytes and _is_whole(content, at))
        self._file.read(next(within, size_bytes))

    def _pass_damage(self) -> Damage:
        """Go on to the next whole record batch, or to the end."""
        start = self._file.place()
        content = self._file.read()
        self._file.back_to(start)
        lost_bytes = next(filter(partial(_is_whole, content), _markers(content)), len(content))
        self._file.read(lost_bytes)
        return Damage(self.path, start.offset_bytes, lost_bytes, self.position)


class _AfterSchema(io.RawIOBase):
    """What is left of a file, after the head that every capture has: it reads as a whole one."""

    def __init__(self, file: DigestingFile | pa.NativeFile) -> None:
        self._head = io.BytesIO(_SCHEMA_MESSAGE)
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._head.read(size) or self._file.read(size)


def _is_whole(content: bytes, at: int) -> bool:
    """Tell whether a whole record batch begins there."""
    rest = pa.BufferReader(pa.py_buffer(content).slice(at))
    try:
        batch = next_batch(pa.ipc.open_stream(_AfterSchema(rest)), digest_required=True)
    except DAMAGE:
        return False
    return batch is not None


def _markers(content: bytes) -> Iterator[int]:
    """Yield where a record batch may begin, after the first byte.

    `content` begins at a multiple of eight bytes of its file. A marker is followed by the length
    of what describes the batch.
    """
    at = content.find(_CONTINUATION, 1)
    while at != -1:
        aligned = at + -at % _ALIGNMENT_BYTES
        if content.startswith(_CONTINUATION, aligned):
            length = int.from_bytes(content[aligned + 4 : aligned + 8], "little", signed=True)
            if 0 < length <= len(content) - aligned and not length % _ALIGNMENT_BYTES:
                yield aligned
            aligned += _ALIGNMENT_BYTES
        at = content.find(_CONTINUATION, aligned)
