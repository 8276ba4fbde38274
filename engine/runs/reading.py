"""What a live engine, or a replay, is reading, written down before it is read.

The note is gone once the states of it are committed. Where one finds the note of another, that one
died, was killed or hung over what the note names: it is tried apart before it is read again
(quarantine.py).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import TypeAdapter, ValidationError, WrapValidator

from framewalk.engine.captures import (
    CaptureBatch,
    CapturePosition,
    CaptureReader,
    Damage,
    GrowingCapture,
    capture_path,
    is_segment,
)
from framewalk.engine.errors import CaptureError
from framewalk.engine.stages import regroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

NOTE_NAME: Final = "reading.json"

Item = TypeVar("Item", bound=CaptureBatch | Damage)


def _object_or_file(value: object, as_file: Callable[[object], Path]) -> Path:
    """Read a path as it was written: that of an object is more than one of a file."""
    return capture_path(value) if isinstance(value, str) and "://" in value else as_file(value)


@dataclass(frozen=True, slots=True)
class Span:
    """Record batches of a segment: those behind `begin_bytes`, up to `end_bytes`."""

    path: Annotated[Path, WrapValidator(_object_or_file)]
    begin_bytes: int
    end_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Spans that are read together, and what is known of their messages.

    The first `lives` messages do no harm; the first `dies` do, if it is not 0. With `commits` that
    is known of their commit as well.
    """

    spans: tuple[Span, ...] = ()
    lives: int = 0
    dies: int = 0
    commits: bool = False

    @property
    def ends_bytes(self) -> dict[Path, int]:
        """How far each capture was read."""
        return {one.path: one.end_bytes for one in self.spans}


_READING: Final = TypeAdapter(Reading)


class ReadingNote:
    """A note: a file, NOTE_NAME in the folder of a spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")

    def write(self, reading: Reading) -> None:
        """Replace the note. It outlives this process, and need not outlive the machine."""
        content = _READING.dump_json(reading)
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)
        self._partial.replace(self.path)

    def touch(self) -> None:
        """Show that what it names is still worked on."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def clear(self) -> None:
        """Remove it: what it names is stored."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def read(self) -> Reading:
        """Return what it names; nothing where there is none, or it cannot be read."""
        try:
            return _READING.validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return Reading()


def grouped(
    capture: CaptureReader | GrowingCapture, read: Iterator[Item], careful_to_bytes: int
) -> Iterator[tuple[list[Item], bool]]:
    """Yield what is worked on at once of what is read, and whether it is committed by itself.

    That is each record batch of the capture, up to where `careful_to_bytes` says.
    """
    while capture.position.offset_bytes < careful_to_bytes:
        item = next(read, None)
        if item is None:
            return
        yield [item], True
    for group in regroup(read, _messages):
        yield group, False


def _messages(item: CaptureBatch | Damage) -> pa.RecordBatch | None:
    return item.messages if isinstance(item, CaptureBatch) else None


def batches_of(spans: Iterable[Span]) -> Iterator[tuple[Path, CaptureBatch]]:
    """Yield the record batches of spans; those of a capture that is gone are left out."""
    for span in spans:
        batches = _of_segment(span) if is_segment(span.path) else _of_capture(span)
        # What was read before damage counts.
        with contextlib.suppress(CaptureError, OSError):
            for batch in batches:
                if batch.position.offset_bytes > span.end_bytes:
                    break
                if batch.position.offset_bytes > span.begin_bytes:
                    yield span.path, batch


def _of_segment(span: Span) -> Iterator[CaptureBatch]:
    """Read on where the span begins, past damage."""
    with GrowingCapture(span.path, CapturePosition(span.begin_bytes, 0, "")) as capture:
        for item in capture.read(is_complete=True):
            if isinstance(item, CaptureBatch):
                yield item


def _of_capture(span: Span) -> Iterator[CaptureBatch]:
    with CaptureReader(span.path) as reader:
        yield from reader
