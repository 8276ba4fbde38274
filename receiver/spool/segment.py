"""One file of the spool while it is written: streams into record batches, each with its digest."""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.captures import CAPTURE_SCHEMA, DIGEST_KEY, batch_digest

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


class NotSyncedError(OSError):
    """Streams are in the file, for readers to find, and could not be forced to disk."""


class Segment:
    """One file of the spool, being written. `size_bytes` counts whole record batches.

    A batch that readers may have found stays: they count it. Where it could not be forced to
    disk, `needs_mending` is true.
    """

    def __init__(self, path: Path, compression: str | None) -> None:
        self.opened_at_s = time.monotonic()
        self.size_bytes = 0
        self.path = path
        self._unsynced = b""
        self._is_content_synced = True
        self._is_name_synced = True
        self._streams = 0
        self._new_path = path.with_name(path.name + NEW_SUFFIX)
        self._descriptor = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._pending = bytearray()
        options = pa.ipc.IpcWriteOptions(compression=compression)
        sink = pa.PythonFile(_Sink(self._pending), "w")
        self._writer = pa.ipc.new_stream(sink, CAPTURE_SCHEMA, options=options)

    @property
    def is_synced(self) -> bool:
        """Whether all that was written is on disk, with the file's name."""
        return self._is_content_synced and self._is_name_synced

    @property
    def needs_mending(self) -> bool:
        """Whether the last record batch could not be forced to disk."""
        return bool(self._unsynced)

    def append(self, streams: Sequence[WaitingStream], *, sync: bool) -> None:
        """Write the streams as one record batch.

        Raises NotSyncedError where the batch is in the file and stays: `mend` it before the next.
        After any other error nobody can have read of it: `cut_back`.
        """
        batch = _as_batch(streams, self._streams)
        self._writer.write_batch(batch, custom_metadata={DIGEST_KEY: batch_digest(batch)})
        content = self._flush()
        if not self.size_bytes:
            if sync:
                self._sync_content()
            self._new_path.rename(self.path)
            self._is_name_synced = False
        self.size_bytes += len(content)
        self._streams += len(streams)
        if not sync:
            return
        try:
            self.sync()
        except OSError as error:
            self._unsynced = content
            raise NotSyncedError(*error.args) from error

    def sync(self) -> None:
        """Force what was written to disk, and the file's name."""
        self._sync_content()
        if not self._is_name_synced:
            sync_folder(self.path.parent)
            self._is_name_synced = True

    def mend(self) -> None:
        """Force to disk what could not be before.

        It is written once more, in its place: after a failure the system may take what it has in
        memory for written, and the next sync would not even try.
        """
        if not self._unsynced:
            return
        start_bytes = self.size_bytes - len(self._unsynced)
        written = 0
        while written < len(self._unsynced):
            rest = memoryview(self._unsynced)[written:]
            written += os.pwrite(self._descriptor, rest, start_bytes + written)
        self._is_content_synced = False
        self.sync()
        self._unsynced = b""

    def is_deleted(self) -> bool:
        """Tell whether the file has no name any more: what is in it is lost."""
        return not os.fstat(self._descriptor).st_nlink

    def cut_back(self) -> None:
        """Cut off what was written after the last whole record batch, and give the file up."""
        with suppress(OSError):
            if self.size_bytes:
                os.ftruncate(self._descriptor, self.size_bytes)
                os.fdatasync(self._descriptor)
            else:
                self._new_path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Give the file up as it is."""
        with suppress(OSError):
            os.close(self._descriptor)

    def close(self, *, sync: bool) -> None:
        """Write the end marker. Without it, on a full disk, the segment is as good."""
        try:
            self._writer.close()
            self.size_bytes += len(self._flush())
            if sync:
                self.sync()
        except OSError:
            self.cut_back()
        except BaseException:
            self.cut_back()
            raise
        else:
            os.close(self._descriptor)

    def _sync_content(self) -> None:
        if not self._is_content_synced:
            os.fdatasync(self._descriptor)
            self._is_content_synced = True

    def _flush(self) -> bytes:
        content = bytes(self._pending)
        self._pending.clear()
        self._is_content_synced = False
        written = 0
        while written < len(content):
            written += os.write(self._descriptor, memoryview(content)[written:])
        return content


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
