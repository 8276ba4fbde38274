"""One file of the spool while it is written: streams into record batches, each with its digest."""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.capture import CAPTURE_SCHEMA, DIGEST_KEY, batch_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from typing_extensions import Buffer

# A file has its real name only when its first record batch is in it.
NEW_SUFFIX: Final = ".new"


@dataclass(frozen=True, slots=True)
class WaitingStream:
    """A whole stream that waits to be written; `done` tells its sender what became of it."""

    messages: list[bytes]
    received_at_ns: Sequence[int]
    done: Future[bool]

    def forget_if_cancelled(self, done: Future[bool]) -> None:
        """Give the memory back at once where the stream was given up before it was written."""
        if done.cancelled():
            self.messages.clear()

    @property
    def size_bytes(self) -> int:
        """Return the size of all messages."""
        return sum(map(len, self.messages))


class Segment:
    """One file of the spool, being written. `size_bytes` counts whole record batches."""

    def __init__(self, path: Path, compression: str | None) -> None:
        self.opened_at_s = time.monotonic()
        self.size_bytes = 0
        self.is_synced = True
        self._streams = 0
        self._path = path
        self._new_path = path.with_name(path.name + NEW_SUFFIX)
        self._descriptor = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._pending = bytearray()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        sink = pa.PythonFile(_Sink(self._pending), "w")
        self._writer = pa.ipc.new_stream(sink, CAPTURE_SCHEMA, options=options)

    def append(self, streams: Sequence[WaitingStream], *, sync: bool) -> None:
        """Write the streams as one record batch; `cut_back` if that fails."""
        batch = _as_batch(streams, self._streams)
        self._writer.write_batch(batch, custom_metadata={DIGEST_KEY: batch_digest(batch)})
        written_bytes = self._flush()
        self.is_synced = False
        if sync:
            self.sync()
        if not self.size_bytes:
            self._publish(sync=sync)
        self.size_bytes += written_bytes
        self._streams += len(streams)

    def sync(self) -> None:
        """Force what was written to disk."""
        os.fdatasync(self._descriptor)
        self.is_synced = True

    def cut_back(self) -> None:
        """Cut off what was written after the last whole record batch, and give the file up."""
        with suppress(OSError):
            if self.size_bytes:
                os.ftruncate(self._descriptor, self.size_bytes)
                os.fdatasync(self._descriptor)
            else:
                self._new_path.unlink(missing_ok=True)
                self._path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self._descriptor)

    def close(self, *, sync: bool) -> None:
        """Write the end marker. Without it, on a full disk, the segment is as good."""
        try:
            self._writer.close()
            self.size_bytes += self._flush()
            if sync:
                self.sync()
        except OSError:
            self.cut_back()
        else:
            os.close(self._descriptor)

    def _publish(self, *, sync: bool) -> None:
        self._new_path.rename(self._path)
        if sync:
            sync_folder(self._path.parent)

    def _flush(self) -> int:
        content = memoryview(bytes(self._pending))
        self._pending.clear()
        written = 0
        while written < len(content):
            written += os.write(self._descriptor, content[written:])
        return written


class _Sink(io.RawIOBase):
    """Where the Arrow writer puts its bytes until they are written in one go."""

    def __init__(self, pending: bytearray) -> None:
        self._pending = pending

    def writable(self) -> bool:
        return True

    def write(self, content: Buffer) -> int:
        self._pending += content
        return len(memoryview(content))


def _as_batch(streams: Sequence[WaitingStream], first_number: int) -> pa.RecordBatch:
    numbers: list[int] = []
    seqs: list[int] = []
    received_at_ns: list[int] = []
    messages: list[bytes] = []
    for number, stream in enumerate(streams, first_number):
        count = len(stream.messages)
        numbers += [number] * count
        seqs += range(count)
        received_at_ns += stream.received_at_ns
        messages += stream.messages
    columns = (numbers, seqs, received_at_ns, messages)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, CAPTURE_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=CAPTURE_SCHEMA)


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
