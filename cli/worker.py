"""A process that does the work of a command, and one that waits for it and starts the next.

What a process does not outlive (a message that ends it, a system without memory) must not end the
command: another process goes on, and sees to what the last one was at. The waiting one has loaded
everything and computed nothing, so that it can be forked, and costs some milliseconds.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Self

import typer

from framewalk.cli.console import complain, warn
from framewalk.engine.errors import BrokenTaskError, FramewalkError
from framewalk.engine.processes import end_with_parent, used_by

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a worker ends with that met something nobody thought of.
_FAULT: Final = 70
_MOST_DEATHS: Final = 3
# CPU time between two signs of life; ten times as long for a worker that only waits.
_LONGEST_CPU_S: Final = 120
_WAITING_FACTOR: Final = 10
_LOOK_EVERY_S: Final = 1.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAITED_FOR: Final = {*_ENDING, signal.SIGCHLD}
# A signal of a terminal reaches both processes; one of `kill` this one only.
_SENT_BY_PROCESS: Final = 0


@dataclass(frozen=True, slots=True)
class Worker:
    """This process, which does the work.

    `deaths` is how many before it have died over the same, and `problem` what ended the last one.
    """

    deaths: int = 0
    problem: str = ""

    @classmethod
    def alone(cls) -> Self:
        """Return one that nobody waits for: what ends it is told."""
        return cls(deaths=_MOST_DEATHS)

    @property
    def is_last(self) -> bool:
        """Whether nobody comes after this one: what ends it is told."""
        return self.deaths >= _MOST_DEATHS

    @contextmanager
    def fault_ends_it(self) -> Iterator[None]:
        """End the process at what nobody thought of, for the next one to see to."""
        try:
            yield
        except BrokenTaskError as error:
            if self.is_last:
                raise
            warn(str(error))
            os._exit(_FAULT)
        except (FramewalkError, OSError, KeyboardInterrupt, SystemExit, typer.Exit):
            raise
        except BaseException:
            if self.is_last or "FRAMEWALK_TRACEBACK" in os.environ:
                raise
            os._exit(_FAULT)


def worker(note: Path) -> Worker:
    """Return in a process that is to do the work; the one that called waits, and ends as it does.

    A worker that dies while `note` is there has a successor, at most three for the same note. So
    has one that computes for two minutes without touching it.
    """
    deaths, problem = 0, ""
    while True:
        # Whatever comes meanwhile is for the one that waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        child = os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
            end_with_parent()
            return Worker(deaths, problem)
        before = _content(note)
        code, problem = _waited(child, note)
        if _is_end(code, problem) or _content(note) is None:
            _end_as(code)
        problem = problem or ("an error" if code == _FAULT else f"signal {-code}")
        deaths = deaths + 1 if _content(note) == before else 1
        if deaths > _MOST_DEATHS:
            complain(f"{note}: {deaths} processes have ended over what this names ({problem})")
            os._exit(1)


def _is_end(code: int, problem: str) -> bool:
    """Tell whether a worker has ended by itself, or was asked to."""
    return (code >= 0 and code != _FAULT) or (-code in _ENDING and not problem)


def _end_as(code: int) -> NoReturn:
    if code == _FAULT:
        complain(
            "the process that did the work has met an error that is not foreseen; run this again "
            "with FRAMEWALK_TRACEBACK=1 to see it, and report it"
        )
    if code < 0 and -code not in _ENDING:
        complain(
            f"the process that did the work was ended by signal {-code}; run this again to go on"
        )
    os._exit(code if code >= 0 else 128 - code)


def _content(note: Path) -> bytes | None:
    try:
        return note.read_bytes()
    except OSError:
        return None


def _waited(child: int, note: Path) -> tuple[int, str]:
    """Wait for a process, hand on signals; return its exit code, and why it was ended here."""
    life = _Life(child, note)
    problem = ""
    while True:
        info = signal.sigtimedwait(_WAITED_FOR, _LOOK_EVERY_S)
        if info is not None and info.si_signo in _ENDING and info.si_code <= _SENT_BY_PROCESS:
            with suppress(ProcessLookupError):
                os.kill(child, info.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), problem
        if not problem and life.is_over():
            problem = f"no sign of life for {_LONGEST_CPU_S} s of CPU time"
            os.kill(child, signal.SIGKILL)


class _Life:
    """What a worker shows of being alive: it touches its note."""

    def __init__(self, child: int, note: Path) -> None:
        self._child = child
        self._note = note
        self._touched: int | None = None
        self._looks = 0
        self._cpu_s = 0.0

    def is_over(self) -> bool:
        """Tell whether it has been at the same for too long; to be asked every second."""
        touched = _touched(self._note)
        if touched is None or touched != self._touched:
            self._touched, self._looks, self._cpu_s = touched, 0, self._used_s()
            return False
        self._looks += 1
        waits = self._looks * _LOOK_EVERY_S > _WAITING_FACTOR * _LONGEST_CPU_S
        return waits or self._used_s() - self._cpu_s > _LONGEST_CPU_S

    def _used_s(self) -> float:
        used = used_by(self._child)
        return used.cpu_s if used is not None else 0


def _touched(note: Path) -> int | None:
    try:
        return note.stat().st_mtime_ns
    except OSError:
        return None
