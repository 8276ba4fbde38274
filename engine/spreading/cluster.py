"""Workers of a cluster: Dask's scheduler hands tasks out and does again what a dead worker had.

States by peers stay with the workers that made them until a commit rolls them up there. Imported
only by who asks for it (extra `distributed`).
"""

from __future__ import annotations

import re
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from distributed import Client, KilledWorker, Security

from framewalk.engine.closing import Closing
from framewalk.engine.errors import BrokenTaskError, WorkersError
from framewalk.engine.spreading.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.spreading.pool import Made, Task

_LONGEST_WAIT_S: Final = 60
_TLS: Final = "tls://"
_ADDRESS: Final = re.compile(r"((tls|tcp)://)?[^/\s]+:\d+")
_NO_FRAMEWALK: Final = "its workers have not this version of framewalk"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a scheduler and its workers are known by, and this side to them: PEM files."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A task and what comes of it: all of it stays there, of `found` a copy comes here."""

    name: str
    remedy: str
    made: Any
    found: Any


def _security(address: str, files: TlsFiles | None) -> Security:
    """Return how both sides know each other: by files, or by those of Dask's own configuration.

    Raises WorkersError where TLS has none, or cannot use them.
    """
    remedy = "give --scheduler-ca, --scheduler-certificate and --scheduler-key"
    try:
        security = _known_by(files)
        context = security.get_connection_args("client")["ssl_context"]
    except OSError as error:
        problem = f"the files of TLS cannot be used ({error.strerror or error})"
        raise WorkersError(address, problem, remedy) from error
    if context is None and address.startswith(_TLS):
        raise WorkersError(address, "TLS needs three files", remedy)
    return security


def _known_by(files: TlsFiles | None) -> Security:
    if files is None:
        return Security()
    return Security(
        require_encryption=True,
        tls_ca_file=str(files.ca),
        tls_client_cert=str(files.certificate),
        tls_client_key=str(files.key),
    )


class ClusterPool(Closing):
    """Has the workers of a scheduler compute: `tls://HOST:PORT`, with the files of TLS.

    Whoever reaches the port of a scheduler without TLS runs code on all of its machines: such an
    address is refused, unless `without_tls`. Raises WorkersError.
    """

    def __init__(
        self, address: str, files: TlsFiles | None = None, *, without_tls: bool = False
    ) -> None:
        self._address = address
        if not without_tls and not address.startswith(_TLS):
            problem = "without TLS anyone who reaches this port runs code"
            raise WorkersError(address, problem, f"give {_TLS}..., or say --scheduler-without-tls")
        if not _ADDRESS.fullmatch(address):
            raise WorkersError(
                address, "this is no address of a scheduler", f"give {_TLS}HOST:PORT"
            )
        security = _security(address, files)
        with self._explaining():
            self._client = Client(
                address, security=security, timeout=_LONGEST_WAIT_S, set_as_default=False
            )
        self._run = uuid4().hex
        self._next = 0
        self._setup: Any = None
        self._submitted: dict[str, _Submitted] = {}
        try:
            with self._explaining():
                self._client.wait_for_workers(1, timeout=_LONGEST_WAIT_S)
                self._check_versions()
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """How many tasks are done at once, by those that are there now."""
        with self._explaining():
            threads: dict[str, int] = self._client.nthreads()
        return max(sum(threads.values()), 1)

    def begin(self, setup: object) -> None:
        """Have all tasks from now on be computed with this."""
        # A task, and no data that is scattered: that is gone with the worker that has it.
        self._setup = self._task(_same, pack(setup))

    def submit(self, task: Task, of: Sequence[str] = (), *, is_urgent: bool = False) -> str:
        """Have a task computed, of the parts of others, which are done; returns its number."""
        priority = 1 if is_urgent else 0
        others = [self._submitted[number].made for number in of]
        made = self._task(_compute, pack(task), self._setup, others, priority=priority)
        number = str(self._next)
        found = self._task(_found, made, priority=priority)
        self._submitted[number] = _Submitted(str(task), task.remedy, made, found)
        return number

    def found(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Wait for what was found in a task."""
        one = self._submitted[number]
        return unpack(self._result(one.found, one))

    def parts(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Return the parts of a task that is done."""
        one = self._submitted[number]
        return unpack(self._result(self._task(_parts, one.made, priority=1), one))

    def forget(self, numbers: Sequence[str]) -> None:
        """Drop tasks, done or not."""
        for number in numbers:
            # Nobody refers to it any more: the scheduler drops it, or what came of it.
            self._submitted.pop(number, None)

    def close(self) -> None:
        """Leave the cluster to itself."""
        self._submitted.clear()
        self._setup = None
        self._client.close()

    def _task(self, function: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        self._next += 1
        key = f"framewalk-{function.__name__.strip('_')}-{self._run}-{self._next}"
        with self._explaining():
            return self._client.submit(function, *arguments, key=key, **options)

    def _result(self, task: Any, of: _Submitted) -> Any:  # noqa: ANN401 - of whatever it is
        with self._explaining():
            try:
                return task.result()
            except KilledWorker as error:
                problem = f"{error.allowed_failures + 1} workers have ended over it"
                raise BrokenTaskError(of.name, problem, of.remedy) from error

    def _check_versions(self) -> None:
        own = version("framewalk")
        try:
            others = set(self._client.run(_version).values())
        except ImportError as error:
            raise WorkersError(self._address, _NO_FRAMEWALK, f"install {own} there") from error
        if others != {own}:
            problem = f"{_NO_FRAMEWALK}, {own}, but {', '.join(sorted(others - {own}))}"
            raise WorkersError(self._address, problem, f"install {own} there")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (OSError, CancelledError) as error:
            problem = "the scheduler cannot be reached, or is gone"
            text = (str(error).splitlines() or [type(error).__name__])[0].lower()
            remedy = "check the address and its workers, and run this again: it goes on"
            raise WorkersError(self._address, f"{problem} ({text})", remedy) from error


def _version() -> str:
    return version("framewalk")


def _same(content: bytes) -> bytes:
    return content


def _compute(content: bytes, setup: bytes, others: Sequence[Made]) -> Made:
    task: Task = unpack(content)
    return task.compute(_unpacked(setup), (one.parts for one in others))


def _found(made: Made) -> bytes:
    return pack(made.found)


def _parts(made: Made) -> bytes:
    return made.parts


@lru_cache(maxsize=1)
def _unpacked(setup: bytes) -> Any:  # noqa: ANN401 - of the kind of the tasks
    """Return it as it was; a worker reads it once."""
    return unpack(setup)
