"""What commands ask a running server to change, and what it answers: files beside its store.

Whoever can write there can write the store. The engine looks for a request before each look at the
spool. A request names the process that it is for: no later server takes it for one of its own.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import field
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from framewalk.engine.errors import InputError

_ASKED: Final = ".asked.json"
_ANSWERED: Final = ".answered.json"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the engine process `pid`; `name` tells it from others.

    With `oal_paths` definitions are to be taken, or with `only_tell` what they would change is to
    be told; `recompute_s` is for how long back the metrics that change are to be made again.
    Without, `metrics` (all, if there are none) of the minutes from `first` to before `end`; if it
    `resolves`, with the names that are known by now.
    """

    name: str
    pid: int
    oal_paths: tuple[Path, ...] = ()
    only_tell: bool = False
    recompute_s: float = 0
    metrics: tuple[str, ...] = ()
    first: int = 0
    end: int = 0
    resolves: bool = False


class State(StrEnum):
    """How far a request has come."""

    REFUSED = "refused"
    TOLD = "told"
    TAKEN = "taken"
    APPLIED = "applied"
    MAKING = "making"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request by now; `problem` is why it was refused.

    `changes` are names of metrics by what becomes of them, `unchanged` counts the others. `refused`
    says which metrics cannot be made again; `done` of `minutes` were, of so many `logs`, of which
    `named` had no name before.
    """

    name: str
    state: State
    problem: str = ""
    changes: dict[str, list[str]] = field(default_factory=dict)
    unchanged: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    metrics: int = 0
    minutes: int = 0
    skipped: int = 0
    done: int = 0
    logs: int = 0
    named: int | None = None


_REQUEST: Final = TypeAdapter(Request)
_ANSWER: Final = TypeAdapter(Answer)


def ask(store: Path, request: Request) -> None:
    """Ask for something; raises InputError where another request waits for its answer."""
    path = store.with_name(store.name + _ASKED)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    _write(partial, _REQUEST.dump_json(request))
    try:
        path.hardlink_to(partial)
    except FileExistsError as error:
        remedy = "wait until it is over; remove the file if no command runs"
        raise InputError(path, "another command asks this server", remedy) from error
    finally:
        partial.unlink()


def take_request(store: Path) -> Request | None:
    """Return what is asked of this process, once; None where nothing is."""
    path = store.with_name(store.name + _ASKED)
    request = _read(path, _REQUEST)
    if request is None:
        return None
    with contextlib.suppress(OSError):
        path.unlink()
    return request if request.pid == os.getpid() else None


def answer(store: Path, content: Answer) -> None:
    """Say what became of a request by now. A disk that is full keeps nobody from working."""
    path = store.with_name(store.name + _ANSWERED)
    partial = path.with_name(f"{path.name}.partial")
    with contextlib.suppress(OSError):
        _write(partial, _ANSWER.dump_json(content))
        partial.replace(path)


def read_answer(store: Path, name: str) -> Answer | None:
    """Return what became of the request of a name, if that was told."""
    found = _read(store.with_name(store.name + _ANSWERED), _ANSWER)
    return found if found is not None and found.name == name else None


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
        file.write(content)


def _read(path: Path, adapter: TypeAdapter[_T]) -> _T | None:
    try:
        return adapter.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
