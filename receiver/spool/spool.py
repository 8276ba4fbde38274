"""The spool: whole streams on disk before they are acknowledged (capture.md).

Segments are captures. A stream's messages are handed over when the stream has ended, and are
written in one record batch: a torn segment loses whole streams that were not acknowledged, and
a stream that broke off is never counted. Streams that wait at the same time are written and
synced together, so safety costs one fsync per group and not per stream.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty, Queue
from typing import TYPE_CHECKING, ClassVar, Final

from framewalk.engine.captures import CAPTURE_SUFFIX, Damage, GrowingCapture, segments_in
from framewalk.engine.errors import CaptureError, FramewalkError
from framewalk.engine.telling import Trouble, tell
from framewalk.receiver.spool.known import KnownStreams
from framewalk.receiver.spool.lock import FolderLock, SpoolLockedError
from framewalk.receiver.spool.segment import (
    NEW_SUFFIX,
    Joined,
    NotSyncedError,
    Segment,
    WaitingStream,
    sync_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa


# What is written and forced to disk at once, unless a stream is larger: meanwhile it is in memory
# three times.
_GROUP_BYTES: Final = 8 * 2**20
# How often a batch is written again because somebody deletes the segments it is in.
_MOST_DELETED: Final = 3
# How long what could not be forced to disk waits for the next try, where no stream asks for it.
_MEND_EVERY_S: Final = 1


class SpoolFullError(FramewalkError):
    """The spool's budget is used up; the stream is not acknowledged."""

    reason: ClassVar[str] = "spool"


class SpoolDiskError(SpoolFullError):
    """The disk takes nothing: it is full or broken, or the folder may not be written."""

    reason: ClassVar[str] = "disk"


class Fsync(StrEnum):
    """When written streams are forced to disk."""

    BATCH = "batch"
    INTERVAL = "interval"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """How a spool writes.

    `budget_bytes` counts all segments in the folder. Of the newest `remembered_bytes` the streams
    are known after a restart, and at most `remembered_streams` ever. Where `reserve_path` is not
    there, somebody who needs the same disk has nothing else: `reserve_bytes` of it are left alone.
    """

    folder: Path
    segment_bytes: int = 64 * 2**20
    segment_age_s: float = 60
    budget_bytes: int = 10 * 2**30
    fsync: Fsync = Fsync.BATCH
    fsync_interval_s: float = 1
    compression: str | None = "zstd"
    remembered_streams: int = 100_000
    remembered_bytes: int = 128 * 2**20
    reserve_path: Path | None = None
    reserve_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a spool found when it was opened: all segments, and the streams of the newest."""

    segments: int
    size_bytes: int
    read_segments: int
    streams: int
    messages: int
    warnings: tuple[str, ...]


class Spool:
    """Writes streams into segments, one thread for all; one process may have a folder open.

    `append` may be called from any thread. Its future gives True when the stream is on disk,
    False when it gave that for the very same stream before (a sender that was cut off before it
    got the answer sends it again), or raises SpoolFullError. A future that is cancelled before
    its stream is taken up leaves nothing behind.

    The newest segments are read first, by the same thread: what is handed over meanwhile waits.
    `on_opened` is told what was found before any stream is answered; `opening` has it then, or
    what made the spool of no use, an OSError as a rule, and every stream is refused.

    Raises SpoolLockedError where another process has the folder open.
    """

    def __init__(
        self,
        options: SpoolOptions,
        on_flush: Callable[[float], None] = lambda _duration_s: None,
        on_opened: Callable[[Recovered], None] = lambda _recovered: None,
    ) -> None:
        self.options = options
        self._on_flush = on_flush
        self._on_opened = on_opened
        options.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(options.folder)
        self._known = KnownStreams(options.remembered_streams)
        self._trouble = Trouble("disk takes no streams", "disk takes streams again")
        self.opening: Future[Recovered] = Future()
        # Nobody who waits for it can cancel it.
        self.opening.set_running_or_notify_cancel()
        self._used_bytes = 0
        self._queue: Queue[WaitingStream | None] = Queue()
        self._closing = threading.Lock()
        self._is_closed = False
        self._segment: Segment | None = None
        self._last_name = _newest_name(options.folder)
        self._synced_at_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def recovered(self) -> Recovered:
        """Return what was found, as soon as it is known; raises what `opening` raises."""
        return self.opening.result()

    def append(self, messages: Sequence[bytes], received_at_ns: Sequence[int]) -> Future[bool]:
        """Hand over a whole stream, in the order its messages came."""
        waiting = WaitingStream(list(messages), received_at_ns, Future())
        waiting.done.add_done_callback(waiting.forget_if_cancelled)
        with self._closing:
            if self._is_closed:
                message = f"{self.options.folder}: the spool is closed"
                raise SpoolFullError(message)
            self._queue.put(waiting)
        return waiting.done

    def finish(self, timeout_s: float | None = None) -> bool:
        """Write what waits and end the segment; the folder stays this process's.

        Returns whether that was done in time. A disk may take for ever.
        """
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self, timeout_s: float | None = None) -> None:
        """Finish, and give the folder back; after the time-out the system does, at the exit."""
        if self.finish(timeout_s):
            self._lock.release()

    def size_bytes(self) -> int:
        """Return the size of all segments on disk."""
        return sum(_size_bytes(path) for path in segments_in(self.options.folder))

    def _open(self) -> bool:
        """Read what is there, and tell whether streams can be taken."""
        try:
            recovered = self._recover()
            self._used_bytes = recovered.size_bytes
            self._on_opened(recovered)
        except Exception as error:  # noqa: BLE001 - whoever opened the spool is told
            self.opening.set_exception(error)
            return False
        self.opening.set_result(recovered)
        return True

    def _recover(self) -> Recovered:
        for path in self.options.folder.glob(f"*{CAPTURE_SUFFIX}{NEW_SUFFIX}"):
            path.unlink()
        paths = segments_in(self.options.folder)
        newest = _newest(paths, self.options.remembered_bytes)
        streams = messages = 0
        warnings: list[str] = []
        for path in newest:
            try:
                with GrowingCapture(path) as capture:
                    if self.options.fsync is not Fsync.NEVER:
                        # Who sends one of these streams again is told that it is on disk.
                        capture.sync()
                    for found in capture.read(is_complete=True):
                        if isinstance(found, Damage):
                            warnings.append(str(found))
                            continue
                        streams += self._remember_streams(found.messages)
                        messages += found.messages.num_rows
            except CaptureError as error:
                warnings.append(str(error))
        if self.options.fsync is not Fsync.NEVER:
            sync_folder(self.options.folder)
        size_bytes = sum(map(_size_bytes, paths))
        return Recovered(len(paths), size_bytes, len(newest), streams, messages, tuple(warnings))

    def _remember_streams(self, batch: pa.RecordBatch) -> int:
        grouped: dict[int, list[bytes]] = {}
        pairs = zip(batch["stream"].to_pylist(), batch["message"].to_pylist(), strict=True)
        for stream, message in pairs:
            grouped.setdefault(stream, []).append(message)
        for one in grouped.values():
            self._known.add(Joined.of(one).digest())
        return len(grouped)

    def _run(self) -> None:
        try:
            if self._open():
                self._write_forever()
        except Exception as error:  # noqa: BLE001 - whatever it is, streams must not wait for ever
            tell(logging.ERROR, "writing has ended, streams are refused", error=repr(error))
        with self._closing:
            self._is_closed = True
        while not self._queue.empty():
            waiting = self._queue.get()
            if waiting is not None:
                closed = SpoolFullError(f"{self.options.folder}: the spool is closed")
                _fail(_taken_up([waiting]), closed)

    def _write_forever(self) -> None:
        while not self._write_next():
            pass
        self._end_segment()

    def _write_next(self) -> bool:
        """Write what waits next, and tell whether it is the last; nothing of it is kept after."""
        try:
            first = self._queue.get(timeout=self._idle_s())
        except Empty:
            self._look_after_segment()
            return False
        waiting, is_last = self._group(first)
        group = _taken_up(waiting)
        try:
            self._write_group(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next stream must not wait for ever
            _fail(group, error)
        finally:
            # Not when the collector of garbage comes by: futures and callbacks lead to each other.
            for one in waiting:
                one.forget()
        return is_last

    def _group(self, first: WaitingStream | None) -> tuple[list[WaitingStream], bool]:
        """Take the streams that wait now, and tell whether they are the last."""
        group: list[WaitingStream] = []
        size_bytes = 0
        waiting = first
        while waiting is not None:
            group.append(waiting)
            size_bytes += waiting.size_bytes
            if size_bytes >= _GROUP_BYTES or self._queue.empty():
                return group, False
            waiting = self._queue.get()
        return group, True

    def _write_group(self, group: Sequence[WaitingStream]) -> None:
        try:
            self._mend_segment()
            admitted = self._admit(self._fresh(group))
        except OSError as error:
            self._refuse(group, error)
            return
        if not admitted:
            return
        try:
            self._write_streams([same[0] for same in admitted.values()])
        except (OSError, SpoolLockedError) as error:
            if isinstance(error, NotSyncedError):
                # They may be counted by now: sent again, they are not to be written again.
                self._known.add_unsynced(admitted)
            self._refuse([waiting for same in admitted.values() for waiting in same], error)
            return
        self._trouble.is_over()
        self._known.add(*admitted)
        for same in admitted.values():
            for index, waiting in enumerate(same):
                waiting.done.set_result(index == 0)

    def _fresh(self, group: Iterable[WaitingStream]) -> dict[bytes, list[WaitingStream]]:
        """Return the streams that are to be written, by digest, and answer the others."""
        fresh: dict[bytes, list[WaitingStream]] = {}
        for waiting in group:
            digest = waiting.join().digest()
            if digest in self._known:
                waiting.done.set_result(self._known.is_new_to_sender(digest))
            else:
                fresh.setdefault(digest, []).append(waiting)
        return fresh

    def _refuse(self, group: Iterable[WaitingStream], error: OSError | SpoolLockedError) -> None:
        """Refuse streams because of the disk."""
        problem = str(error)
        if isinstance(error, OSError) and error.strerror:
            problem = f"{self.options.folder}: {error.strerror.lower()}"
        self._trouble.goes_on(problem)
        _fail(group, SpoolDiskError(problem))

    def _admit(self, fresh: dict[bytes, list[WaitingStream]]) -> dict[bytes, list[WaitingStream]]:
        """Return the streams that the budget has room for, and refuse the others."""
        sizes_bytes = {digest: same[0].size_bytes for digest, same in fresh.items()}
        if self._used_bytes + sum(sizes_bytes.values()) > self.options.budget_bytes:
            self._used_bytes = self.size_bytes()
        room_bytes = self.options.budget_bytes - self._used_bytes
        admitted = {}
        for digest, same in fresh.items():
            if sizes_bytes[digest] > room_bytes:
                budget = f"the spool's budget of {self.options.budget_bytes:,} bytes is used up"
                _fail(same, SpoolFullError(f"{self.options.folder}: {budget}"))
                continue
            room_bytes -= sizes_bytes[digest]
            admitted[digest] = same
        return admitted

    def _write_streams(self, streams: Sequence[WaitingStream]) -> None:
        started_s = time.monotonic()
        _leave_reserve(self.options)
        for _ in range(_MOST_DELETED):
            segment = self._open_segment()
            self._append(segment, streams)
            if not self._forget_if_deleted(segment):
                break
        else:
            raise FileNotFoundError(errno.ENOENT, "somebody deletes every new segment")
        self._on_flush(time.monotonic() - started_s)

    def _append(self, segment: Segment, streams: Sequence[WaitingStream]) -> None:
        before_bytes = segment.size_bytes
        try:
            segment.append(streams, sync=self._must_sync())
        except NotSyncedError:
            raise
        except BaseException:
            self._segment = None
            segment.cut_back()
            raise
        finally:
            self._used_bytes += segment.size_bytes - before_bytes

    def _forget_if_deleted(self, segment: Segment) -> bool:
        if not segment.is_deleted():
            return False
        tell(logging.WARNING, "open segment was deleted, a new one is begun", path=segment.path)
        self._segment = None
        segment.leave()
        return True

    def _mend_segment(self) -> None:
        """Force to disk what could not be; until that is done nothing more is written."""
        segment = self._segment
        if segment is None or not segment.needs_mending:
            return
        segment.mend()
        if self._forget_if_deleted(segment):
            self._known.forget_unsynced()
        else:
            self._known.mend()

    def _open_segment(self) -> Segment:
        if self._segment is not None and self._is_complete(self._segment):
            self._close_segment()
        if self._segment is None:
            self._lock.keep()
            path = self.options.folder / f"{self._next_name():020d}{CAPTURE_SUFFIX}"
            self._segment = Segment(path, self.options.compression)
        return self._segment

    def _next_name(self) -> int:
        """Return the time in ns, or the next free number where the clock went back."""
        self._last_name = max(time.time_ns(), self._last_name + 1)
        return self._last_name

    def _is_complete(self, segment: Segment) -> bool:
        age_s = time.monotonic() - segment.opened_at_s
        big = segment.size_bytes >= self.options.segment_bytes
        return big or age_s >= self.options.segment_age_s

    def _must_sync(self) -> bool:
        if self.options.fsync is Fsync.INTERVAL:
            due = time.monotonic() - self._synced_at_s >= self.options.fsync_interval_s
            self._synced_at_s = time.monotonic() if due else self._synced_at_s
            return due
        return self.options.fsync is Fsync.BATCH

    def _idle_s(self) -> float | None:
        """Return how long the open segment may be left alone."""
        if self._segment is None:
            return None
        if self._segment.needs_mending:
            return _MEND_EVERY_S
        rest_s = self._segment.opened_at_s + self.options.segment_age_s - time.monotonic()
        if self.options.fsync is Fsync.INTERVAL and not self._segment.is_synced:
            rest_s = min(rest_s, self.options.fsync_interval_s)
        return max(rest_s, 0)

    def _look_after_segment(self) -> None:
        """Do what is due for the open segment. If that fails, the next stream finds out."""
        try:
            self._mend_segment()
            segment = self._segment
            if segment is None:
                return
            if self._is_complete(segment):
                self._close_segment()
            elif self.options.fsync is Fsync.INTERVAL and not segment.is_synced:
                self._synced_at_s = time.monotonic()
                segment.sync()
        except OSError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must go on
            tell(logging.ERROR, "open segment cannot be looked after", error=repr(error))

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close(sync=self.options.fsync is not Fsync.NEVER)

    def _end_segment(self) -> None:
        """Close the segment at the end, if that can be done."""
        self._look_after_segment()
        if self._segment is not None and self._segment.needs_mending:
            self._segment.leave()
        else:
            self._close_segment()


def _leave_reserve(options: SpoolOptions) -> None:
    """Raise OSError where a stream would take what is left of the disk for whoever needs it."""
    path, folder = options.reserve_path, options.folder
    if path is None or path.exists() or not path.parent.exists():
        return
    disk = os.statvfs(folder)
    is_same_disk = path.parent.stat().st_dev == folder.stat().st_dev
    if is_same_disk and disk.f_bavail * disk.f_frsize < options.reserve_bytes:
        raise OSError(errno.ENOSPC, "no space left on device but what the engine needs")


def _newest_name(folder: Path) -> int:
    """Return the number that the newest segment is named by, 0 where there is none."""
    newest = segments_in(folder)[-1:]
    return int(newest[0].name.removesuffix(CAPTURE_SUFFIX)) if newest else 0


def _taken_up(waiting: Iterable[WaitingStream]) -> list[WaitingStream]:
    """Return the streams that were not given up; from here on they cannot be."""
    return [one for one in waiting if one.done.set_running_or_notify_cancel()]


def _fail(group: Iterable[WaitingStream], error: Exception) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)


def _newest(paths: Sequence[Path], most_bytes: int) -> list[Path]:
    """Return the last segments, the oldest first: at least two, then up to a size in all."""
    chosen: list[Path] = []
    total_bytes = 0
    for path in reversed(paths):
        total_bytes += _size_bytes(path)
        if total_bytes > most_bytes and len(chosen) > 1:
            break
        chosen.insert(0, path)
    return chosen


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Deleted since it was listed.
        return 0
