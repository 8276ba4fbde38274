"""One file of the spool while it is written: streams into record batches, each with its digest."""

from __future__ import annotations

import hashlib
import io
import os
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.captures import CAPTURE_SCHEMA, DIGEST_KEY, parts_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from typing_extensions import Buffer

# A file has its real name only when its first record batch is in it.
NEW_SUFFIX: Final = ".new"
_JOINED_BYTES: Final = 2**20
_DIGEST_BYTES: Final = 16


@dataclass(slots=True, eq=False)
class WaitingStream:
    """A whole stream that waits to be written; `done` tells its sender what became of it."""

    messages: list[bytes]
    received_at_ns: Sequence[int]
    done: Future[bool]
    joined: Joined | None = None

    def forget_if_cancelled(self, done: Future[bool]) -> None:
        """Give the memory back at once where the stream was given up before it was written."""
        if done.cancelled():
            self.forget()

    def forget(self) -> None:
        """Give the memory back."""
        self.messages.clear()
        self.joined = None

    @property
    def size_bytes(self) -> int:
        """Return the size of all messages."""
        if self.joined is not None:
            return len(self.joined.content)
        return sum(map(len, self.messages))

    def join(self) -> Joined:
        """Return the messages as one; from here on they are no more by themselves."""
        if self.joined is None:
            self.joined = Joined.of(self.messages)
            self.messages.clear()
        return self.joined


@dataclass(frozen=True, slots=True)
class Joined:
    """Messages one after the other, and the size of each."""

    content: bytes
    sizes_bytes: array[int]

    @staticmethod
    def of(messages: Sequence[bytes]) -> Joined:
        """Join messages."""
        return Joined(b"".join(messages), array("i", map(len, messages)))

    def digest(self) -> bytes:
        """Return what tells a stream from every other: its messages carry times in nanoseconds.

        SHA-256 is what processors have instructions for. It is kept in memory only.
        """
        digest = hashlib.sha256(len(self.sizes_bytes).to_bytes(8))
        digest.update(self.sizes_bytes.tobytes())
        digest.update(self.content)
        return digest.digest()[:_DIGEST_BYTES]


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
        self._unsynced: list[memoryview] = []
        self._is_content_synced = True
        self._is_name_synced = True
        self._streams = 0
        self._new_path = path.with_name(path.name + NEW_SUFFIX)
        self._descriptor = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._sink = _Sink()
        # One thread for all: others would be woken up for each of the columns.
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        sink = pa.PythonFile(self._sink, "w")
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
        batch, digest = _as_batch(streams, self._streams)
        self._writer.write_batch(batch, custom_metadata={DIGEST_KEY: digest})
        content = self._flush()
        if not self.size_bytes:
            if sync:
                self._sync_content()
            self._new_path.rename(self.path)
            self._is_name_synced = False
        self.size_bytes += sum(map(len, content))
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
        place_bytes = self.size_bytes - sum(map(len, self._unsynced))
        for part in self._unsynced:
            written = 0
            while written < len(part):
                written += os.pwrite(self._descriptor, part[written:], place_bytes + written)
            place_bytes += written
        self._is_content_synced = False
        self.sync()
        self._unsynced = []

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
            self.size_bytes += sum(map(len, self._flush()))
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

    def _flush(self) -> list[memoryview]:
        """Write what the Arrow writer has made, and return it."""
        content = self._sink.take()
        self._is_content_synced = False
        for part in content:
            written = 0
            while written < len(part):
                written += os.write(self._descriptor, part[written:])
        return content


class _Sink(io.RawIOBase):
    """Where the Arrow writer puts its bytes until they are written; large ones are not copied."""

    def __init__(self) -> None:
        self._parts: list[memoryview] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Buffer) -> int:
        part = memoryview(content).cast("B")
        self._parts.append(part)
        return len(part)

    def take(self) -> list[memoryview]:
        """Return what was put here; what is small is one part, and written at once."""
        parts, self._parts = self._parts, []
        if sum(map(len, parts)) < _JOINED_BYTES:
            return [memoryview(b"".join(parts))]
        return parts


def _as_batch(streams: Sequence[WaitingStream], first_number: int) -> tuple[pa.RecordBatch, bytes]:
    """Return streams as a record batch, and its digest."""
    numbers, seqs, received_at_ns, sizes_bytes = array("Q"), array("I"), array("q"), array("i")
    contents: list[bytes] = []
    for number, stream in enumerate(streams, first_number):
        joined = stream.join()
        count = len(joined.sizes_bytes)
        numbers += array("Q", [number]) * count
        seqs += array("I", range(count))
        received_at_ns += array("q", stream.received_at_ns)
        sizes_bytes += joined.sizes_bytes
        contents.append(joined.content)
    # Of one stream it is the very same bytes.
    content = contents[0] if len(contents) == 1 else b"".join(contents)
    offsets = array("i", accumulate(sizes_bytes, initial=0))
    columns: list[list[Buffer]] = [[numbers], [seqs], [received_at_ns], [offsets, content]]
    arrays = [
        pa.Array.from_buffers(field.type, len(numbers), [None, *map(pa.py_buffer, buffers)])
        for field, buffers in zip(CAPTURE_SCHEMA, columns, strict=True)
    ]
    digest = parts_digest((numbers, seqs, received_at_ns, sizes_bytes, content))
    return pa.RecordBatch.from_arrays(arrays, schema=CAPTURE_SCHEMA), digest


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
