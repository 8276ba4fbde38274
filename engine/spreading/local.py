"""Workers on this machine: processes that are forked from one of their own (nursery.py).

Tasks and what comes of them are files in a folder; only numbers go through sockets, so that nobody
waits for who reads. A task of a worker that ends is done by another.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.errors import BrokenTaskError, FramewalkError, StoreRoomError, WorkersError
from framewalk.engine.processes import used_by
from framewalk.engine.spreading.nursery import (
    DONE,
    Asked,
    Nursery,
    found_path,
    parts_path,
    setup_path,
    task_path,
)
from framewalk.engine.spreading.packing import pack, unpack
from framewalk.engine.spreading.pool import MOST_DEATHS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from framewalk.engine.spreading.pool import Task

# The one that a worker is at, and the next: it does not wait while this process commits.
_TASKS_EACH: Final = 2
# CPU time that a task may take: hundred times what is usual.
_LONGEST_CPU_S: Final = 120
_LOOK_EVERY_S: Final = 1.0
_NO_NURSERY: Final = "the process that they are started by has ended"


@dataclass(slots=True)
class _Task:
    name: str
    remedy: str
    deaths: int = 0


@dataclass(slots=True)
class _Worker:
    """A process, its socket, and the numbers of its tasks: it is at the first."""

    process: int
    link: Connection
    tasks: deque[str] = field(default_factory=deque)
    # CPU seconds that it had used when it began with the first.
    began_cpu_s: float = 0.0


class LocalPool(Closing):
    """Keeps so many workers; `on_broken` is told of each that ends, and what it was at.

    `folder` is made, and removed in the end. Workers are forked from a `nursery`, which is ended
    with them; without it one is started. Raises WorkersError where that cannot be.
    """

    def __init__(
        self,
        workers: int,
        folder: Path,
        on_broken: Callable[[str], None] = lambda _: None,
        nursery: Nursery | None = None,
    ) -> None:
        self.workers = workers
        self._folder = folder
        self._on_broken = on_broken
        self._next = 0
        self._setups = 0
        self._tasks: dict[str, _Task] = {}
        self._waiting: deque[str] = deque()
        self._errors: dict[str, Exception] = {}
        self._running: list[_Worker] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            self._nursery = nursery or Nursery.started()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _not_started((error.strerror or str(error)).lower()) from error

    @property
    def processes(self) -> list[int]:
        """The numbers of the workers' processes."""
        return [worker.process for worker in self._running]

    def begin(self, setup: object) -> None:
        """Have all tasks from now on be computed with this."""
        self._setups += 1
        setup_path(self._folder, self._setups).write_bytes(pack(setup))

    def submit(self, task: Task, of: Sequence[str] = (), *, is_urgent: bool = False) -> str:
        """Have a task computed, of the parts of others, which are done; returns its number."""
        number = str(self._next)
        self._next += 1
        asked = Asked(task, tuple(of), self._setups)
        task_path(self._folder, number).write_bytes(pack(asked))
        self._tasks[number] = _Task(str(task), task.remedy)
        if is_urgent:
            self._waiting.appendleft(number)
        else:
            self._waiting.append(number)
        self._hand_out()
        return number

    def found(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Wait for what was found in a task."""
        self._wait_for(number)
        return unpack(found_path(self._folder, number).read_bytes())

    def parts(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Return the parts of a task that is done."""
        return unpack(parts_path(self._folder, number).read_bytes())

    def forget(self, numbers: Sequence[str]) -> None:
        """Remove what came of tasks, or do not begin with them."""
        for number in numbers:
            self._tasks.pop(number, None)
            self._errors.pop(number, None)
            with suppress(ValueError):
                self._waiting.remove(number)
            for path in (
                task_path(self._folder, number),
                found_path(self._folder, number),
                parts_path(self._folder, number),
            ):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End all processes."""
        is_busy = any(worker.tasks for worker in self._running)
        for worker in self._running:
            worker.link.close()
        self._running = []
        self._nursery.close(at_once=is_busy)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for(self, number: str) -> None:
        """Wait until a task is done. Raises what came up in it."""
        while number in self._tasks:
            if number in self._errors:
                raise self._errors[number]
            self._serve(_LOOK_EVERY_S)

    def _serve(self, longest_s: float) -> None:
        """Take what workers have done, and see to those that have ended."""
        ready = wait([worker.link for worker in self._running], longest_s)
        for worker in [one for one in self._running if one.link in ready]:
            try:
                told = worker.link.recv_bytes()
            except (EOFError, OSError):
                self._bury(worker, "its process has ended")
                continue
            self._take(worker, told)
        if not ready:
            for worker in list(self._running):
                if worker.tasks and _cpu_s(worker) - worker.began_cpu_s > _LONGEST_CPU_S:
                    with suppress(ProcessLookupError):
                        os.kill(worker.process, 9)
                    self._bury(worker, f"no end after {_LONGEST_CPU_S} s of CPU time")
        self._hand_out()

    def _take(self, worker: _Worker, told: bytes) -> None:
        number = worker.tasks.popleft()
        worker.began_cpu_s = _cpu_s(worker)
        if number not in self._tasks:
            # Nobody wants it any more.
            self.forget([number])
        elif told == DONE:
            del self._tasks[number]
        else:
            self._errors[number] = self._explained(unpack(told))

    def _bury(self, worker: _Worker, problem: str) -> None:
        """See to a worker that is gone: its tasks are others', the first of them is to blame."""
        self._running.remove(worker)
        worker.link.close()
        if worker.tasks and worker.tasks[0] in self._tasks:
            number = worker.tasks[0]
            task = self._tasks[number]
            task.deaths += 1
            if task.deaths < MOST_DEATHS:
                self._on_broken(f"{task.name}: {problem}; another worker does it again")
            else:
                worker.tasks.popleft()
                told = f"{MOST_DEATHS} workers have ended over it ({problem})"
                self._errors[number] = BrokenTaskError(task.name, told, task.remedy)
        self._waiting.extendleft(one for one in reversed(worker.tasks) if one in self._tasks)

    def _hand_out(self) -> None:
        """Give tasks to those that have few, and start workers that are missing."""
        while self._waiting and len(self._running) < self.workers:
            self._running.append(self._started())
        while self._waiting:
            worker = min(self._running, key=lambda one: len(one.tasks))
            if len(worker.tasks) >= _TASKS_EACH:
                return
            number = self._waiting.popleft()
            worker.tasks.append(number)
            # One that has ended is seen to when it is heard.
            with suppress(OSError):
                worker.link.send_bytes(number.encode())

    def _started(self) -> _Worker:
        own, others = socket.socketpair()
        try:
            folder = os.fsencode(self._folder.absolute())
            socket.send_fds(self._nursery.asking, [folder], [others.fileno()])
            process = int(self._nursery.asking.recv(20))
        except (OSError, ValueError) as error:
            own.close()
            raise _not_started(_NO_NURSERY) from error
        finally:
            others.close()
        return _Worker(process, Connection(own.detach()))

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, FramewalkError):
            return error
        problem = (getattr(error, "strerror", None) or str(error)).lower()
        remedy = "make room, or check its permissions, and run this again"
        return StoreRoomError(self._folder, problem, remedy)


def _not_started(problem: str) -> WorkersError:
    return WorkersError("workers", f"no process can be started: {problem}", "give --workers 1")


def _cpu_s(worker: _Worker) -> float:
    used = used_by(worker.process)
    return used.cpu_s if used is not None else 0
