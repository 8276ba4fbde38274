"""Who computes for a command: this process, others of this machine, or those of a cluster."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from framewalk.cli.console import warn
from framewalk.engine.errors import InputError
from framewalk.engine.remaking import Here

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.engine.remaking import Making
    from framewalk.engine.spreading import Nursery, Pool

# Below that the start of workers costs more than they save (two cores: half a second of each).
_LARGE_BYTES: Final = 32 * 2**20
# More are kept waiting by the process that commits.
_MOST_BY_DEFAULT: Final = 8
_PANEL: Final = "Workers"
_OPTION: Final = "--scheduler"
_INSTALL: Final = "pip install 'framewalk[distributed]'"

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        max=256,
        metavar="PROCESSES",
        help="Processes that compute. Without it as many as there are processors, at most "
        f"{_MOST_BY_DEFAULT}, where the captures have {_LARGE_BYTES // 2**20} MiB or more; else "
        "one.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
RemakingWorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        max=256,
        metavar="PROCESSES",
        help="Processes that compute.",
        rich_help_panel=_PANEL,
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Have the workers of a Dask cluster compute, which see captures and archives under "
        f"the same paths: tls://HOST:PORT. Needs {_INSTALL}.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
SchedulerCaOption = Annotated[
    Path | None,
    typer.Option(
        "--scheduler-ca",
        metavar="FILE",
        help="The certificate by which the scheduler is known (PEM).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
SchedulerCertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--scheduler-certificate",
        metavar="FILE",
        help="The certificate by which it knows this command (PEM).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
SchedulerKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--scheduler-key",
        metavar="FILE",
        help="The key of that certificate (PEM).",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
WithoutTlsOption = Annotated[
    bool,
    typer.Option(
        "--scheduler-without-tls",
        help="Use a scheduler without TLS. Whoever reaches its port runs code on its machines.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A cluster's scheduler, and the files of TLS."""

    address: str
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    without_tls: bool = False

    @classmethod
    def named(
        cls,
        address: str | None,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        *,
        without_tls: bool,
    ) -> Self | None:
        """Return the one that options name; None where they name none."""
        return None if address is None else cls(address, ca, certificate, key, without_tls)


def chosen(asked: int | None, captures: Sequence[Path]) -> int:
    """Return how many processes are to compute."""
    if asked is not None:
        return asked
    size_bytes = sum(path.stat().st_size for path in captures)
    if size_bytes < _LARGE_BYTES:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_BY_DEFAULT)


def nursery_of(workers: int | None, scheduler: str | None) -> Nursery | None:
    """Fork what workers are forked from, if there are or may be some; it ends with this process.

    To be called while this process has no threads, which are no part of what is forked.
    """
    if workers == 1 or scheduler is not None:
        return None
    from framewalk.engine.spreading import Nursery  # noqa: PLC0415 - see below

    return Nursery.forked()


@contextmanager
def pool_of(
    workers: int, store: Path, scheduler: Scheduler | None, nursery: Nursery | None = None
) -> Iterator[Pool | None]:
    """Have workers beside a store, or those of a cluster; None where this process is to work.

    Those beside a store are forked from a `nursery`, or one is started.

    Raises WorkersError where there are none, and InputError for what is no way to reach them.
    """
    folder = store.with_name(f"{store.name}.workers")
    if scheduler is not None:
        with _cluster(scheduler) as pool:
            yield pool
        return
    if workers == 1:
        # Of a replay that was killed.
        shutil.rmtree(folder, ignore_errors=True)
        if nursery is not None:
            nursery.close(at_once=True)
        yield None
        return
    # Only who wants workers loads what they need.
    from framewalk.engine.spreading import LocalPool  # noqa: PLC0415

    with LocalPool(workers, folder, warn, nursery) as pool:
        yield pool


def making_of(pool: Pool | None) -> Making:
    """Return who makes again what is made of an archive: a pool, or this process."""
    if pool is None:
        return Here()
    from framewalk.engine.spreading import SpreadMaking  # noqa: PLC0415 - see above

    return SpreadMaking(pool)


@contextmanager
def _cluster(scheduler: Scheduler) -> Iterator[Pool]:
    try:
        from framewalk.engine.spreading import ClusterPool, TlsFiles  # noqa: PLC0415
    except ImportError as error:
        raise InputError(_OPTION, "Dask is not installed", _INSTALL) from error
    # What it writes of a lost connection is told by the error that comes of it. Some of its loggers
    # have levels of their own.
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    files = None
    given = (scheduler.ca, scheduler.certificate, scheduler.key)
    if any(given):
        ca, certificate, key = given
        if ca is None or certificate is None or key is None:
            remedy = "give --scheduler-ca, --scheduler-certificate and --scheduler-key"
            raise InputError(_OPTION, "TLS needs three files", remedy)
        for path in (ca, certificate, key):
            if not path.is_file():
                raise InputError(path, "there is no such file", "check the path")
        files = TlsFiles(ca, certificate, key)
    with ClusterPool(scheduler.address, files, without_tls=scheduler.without_tls) as pool:
        yield pool
