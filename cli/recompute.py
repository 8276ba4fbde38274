"""`framewalk recompute`: metrics of a store made again out of its archive."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import typer

from framewalk.cli.applying import print_made
from framewalk.cli.changes import RefusedError, Server, running_server
from framewalk.cli.console import minute_progress, print_summary, say, warn
from framewalk.cli.definitions import ApdexOption, OalOption, PatternsOption
from framewalk.cli.naming import Naming
from framewalk.cli.ranges import EPOCH, FromOption, ToOption, Wanted
from framewalk.cli.recaptured import check_captures, make_of_captures
from framewalk.cli.sources import DEFAULT_STORE, StoreOption
from framewalk.cli.workers import (
    RemakingWorkersOption,
    Scheduler,
    SchedulerCaOption,
    SchedulerCertificateOption,
    SchedulerKeyOption,
    SchedulerOption,
    WithoutTlsOption,
    making_of,
    nursery_of,
    pool_of,
)
from framewalk.engine import Store
from framewalk.engine.archive import Archive, ArchiveOptions, Mode, archive_folder
from framewalk.engine.captures import capture_path
from framewalk.engine.errors import DamagedLogsError, InputError, StoreError
from framewalk.engine.oal import (
    Plan,
    did_you_mean,
    load_plan_of_files,
    make_plan,
)
from framewalk.engine.paths import keep_files_private
from framewalk.engine.remaking import (
    AllMinutes,
    Recomputation,
    Recomputed,
    RecomputingOptions,
    forget_unfinished,
    plan_from_captures,
    plan_recomputation,
    refused_of_captures,
    refused_redefinitions,
    resolve_again,
)
from framewalk.engine.remaking import recompute as make_again
from framewalk.engine.sharing import has_published
from framewalk.engine.store import changed_meanings
from framewalk.server.changing import Request, State

if TYPE_CHECKING:
    from framewalk.engine.spreading import Pool

_EVER: Final = 2**33
_MINUTE: Final = dt.timedelta(minutes=1)


def recompute(
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    since: FromOption = None,
    until: ToOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="NAME",
            help="Make this metric; may be given several times. Without it all are made.",
            show_default=False,
        ),
    ] = None,
    oal: OalOption = None,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FOLDER",
            help="Where the archive is, if it was moved.",
            show_default=False,
        ),
    ] = None,
    apdex_thresholds: ApdexOption = None,
    endpoint_patterns: PatternsOption = None,
    entities: Annotated[
        list[Path] | None,
        typer.Option(
            "--entities",
            "-e",
            metavar="[NAME=]PATH",
            help="Resolve again the addresses that had no name, with this dump; as in replay.",
            show_default=False,
        ),
    ] = None,
    captures: Annotated[
        list[Path] | None,
        typer.Option(
            "--captures",
            metavar="CAPTURE",
            parser=capture_path,
            help="Make them out of captures in place of an archive: of all that the store has "
            "counted. May be given several times.",
            show_default=False,
        ),
    ] = None,
    workers: RemakingWorkersOption = 1,
    scheduler: SchedulerOption = None,
    scheduler_ca: SchedulerCaOption = None,
    scheduler_certificate: SchedulerCertificateOption = None,
    scheduler_key: SchedulerKeyOption = None,
    *,
    scheduler_without_tls: WithoutTlsOption = False,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve",
            help="Resolve again the addresses that had no name, with what is known by now: of the "
            "store, or of the server that has it open.",
        ),
    ] = False,
    name_by_owner: Annotated[
        bool,
        typer.Option(
            "--name-by-owner",
            help="Name pods that no Service selects after their name label or their owner; as in "
            "replay.",
        ),
    ] = False,
) -> None:
    """Make metrics again out of the logs that a store's archive has, or out of captures.

    For definitions that are new, and for those that were repaired: whole
    minutes of the range get new values in place of the old ones.

    With --entities or --resolve also for names that were learnt later.

    One that was cut off goes on where it stopped when it is run again.

    A server that has the store open does it, beside receiving.

    Of a new metric: framewalk recompute --oal mine --metric my_metric
    """
    wanted = Wanted.read(None, since, until)
    server = running_server(store)
    if server is not None:
        if entities or name_by_owner:
            problem = "a server has this store open, and names come from where it has them"
            raise InputError(store, problem, "have it read the dump, then ask with --resolve alone")
        if oal or apdex_thresholds or endpoint_patterns or archive or captures:
            problem = "a server has this store open, with definitions and an archive of its own"
            raise InputError(store, problem, "give it others: `framewalk definitions apply`")
        if workers > 1 or scheduler:
            problem = "a server has this store open, and makes metrics again beside receiving"
            raise InputError(store, problem, "leave --workers and --scheduler out, or stop it")
        _check_options(metric or [], archive, captures, is_resolving=resolve)
        _ask(server, metric or [], wanted, resolves=resolve)
        return
    # Before anything is computed: a process with threads must not be forked.
    nursery = nursery_of(workers, scheduler) if context.obj else None
    plan = load_plan_of_files(
        oal or (),
        apdex_thresholds,
        endpoint_patterns,
        on_warning=lambda warning: warn(str(warning)),
    )
    names = metric or []
    _check_names(plan, names)
    _check_options(names, archive, captures, is_resolving=bool(entities) or resolve)
    if not store.exists():
        raise StoreError(store, "there is no such file", "make it with `framewalk replay`")
    has_naming = bool(entities or resolve or captures)
    naming = Naming(entities or (), store, by_owner=name_by_owner) if has_naming else None
    keep_files_private()
    changed = [one for one in changed_meanings(store, plan) if not names or one in names]
    sources = _Sources(archive, captures or [])
    cluster = Scheduler.named(
        scheduler,
        scheduler_ca,
        scheduler_certificate,
        scheduler_key,
        without_tls=scheduler_without_tls,
    )
    if changed:
        _check_some_can_be_made(store, sources, plan, changed, wanted)
    with pool_of(workers, store, cluster, nursery) as pool, Store(store, plan, changed) as opened:
        if has_published(opened):
            problem = "its engine has published what it computed, and that can only be added to"
            raise InputError(store, problem, "replay its captures into another store")
        if changed:
            forget_unfinished(opened)
        started_s = time.monotonic()
        opened.limit_memory()
        asked = _Asked(names, *_minutes(wanted))
        if captures and naming is not None:
            rows, logs = _make_of_captures(opened, sources, naming, asked, pool)
        else:
            rows, logs = _make_of_archive(opened, sources, naming, asked, pool)
        opened.compact()
        opened.checkpoint()
    rate = logs / max(time.monotonic() - started_s, 1e-9)
    print_summary([*rows, ("logs per second", f"{rate:,.0f}")])


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the logs are: an archive (None for the store's own), or captures, if there are any."""

    archive: Path | None
    captures: list[Path]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Metrics by their names, all without any, and the minutes from one to before another."""

    names: list[str]
    first: int
    end: int


def _check_options(
    names: list[str], archive: Path | None, captures: list[Path] | None, *, is_resolving: bool
) -> None:
    if is_resolving and names:
        problem = "names that are resolved again are those of all metrics"
        raise InputError(names[0], problem, "leave --metric out")
    if archive and captures:
        problem = "metrics are made out of an archive or out of captures"
        raise InputError(archive, problem, "leave one of them out")


def _make_of_archive(
    store: Store, sources: _Sources, naming: Naming | None, wanted: _Asked, pool: Pool | None
) -> tuple[list[tuple[str, str]], int]:
    """Make metrics again; returns rows for a summary, and of how many logs."""
    with _archive_of(store, sources.archive) as logs:
        for problem in logs.problems:
            warn(f"{problem}; minutes that it has logs of keep what they have")
        asked, named, done = _made_whole(store, logs, naming, wanted, pool)
    rows = [("metrics", f"{len(asked.metrics):,}"), ("minutes", f"{done.minutes:,}")]
    rows += [("logs named", f"{named:,}")] if named is not None else []
    rows += [("made before", f"{done.known:,} minutes")] if done.known else []
    return [*rows, ("logs", f"{done.logs:,}")], done.logs


def _made_whole(
    store: Store, logs: Archive, naming: Naming | None, wanted: _Asked, pool: Pool | None
) -> tuple[Recomputation, int | None, Recomputed]:
    """Make metrics again; returns what was, of how many logs that have got names, and how much."""
    while True:
        asked = plan_recomputation(store, logs, wanted.names, wanted.first, wanted.end)
        _tell(store.path, asked, "its archive")
        # Files that turn out to be damaged are told, and their minutes are not asked for again.
        with suppress(DamagedLogsError), minute_progress("metrics") as show:
            named = _resolve(store, logs, asked, naming) if naming is not None else None
            options = RecomputingOptions(on_progress=show, making=making_of(pool))
            done = make_again(store, logs, asked, options)
            return asked, named, done


def _make_of_captures(
    store: Store, sources: _Sources, naming: Naming, wanted: _Asked, pool: Pool | None
) -> tuple[list[tuple[str, str]], int]:
    """Make metrics again; returns rows for a summary, and of how many logs."""
    asked = plan_from_captures(store, wanted.names, wanted.first, wanted.end)
    _tell(store.path, asked, "captures")
    done = make_of_captures(store, asked, sources.captures, naming, pool)
    rows = [("metrics", f"{len(asked.metrics):,}"), ("minutes", f"{done.minutes:,}")]
    known = done.known_messages
    rows += [("read before", f"{known:,} messages")] if known else []
    return [*rows, ("logs", f"{done.logs:,}")], done.logs


def _resolve(store: Store, archive: Archive, asked: Recomputation, naming: Naming) -> int:
    naming.settle(store)
    return resolve_again(store, archive, naming.entities, asked.minutes)


def _ask(server: Server, names: list[str], wanted: Wanted, *, resolves: bool) -> None:
    """Have a server make metrics again, and wait until it has."""
    first, end = _minutes(wanted)
    request = Request("", 0, metrics=tuple(names), first=first, end=end, resolves=resolves)
    try:
        print_made(server.exchange(request, {State.DONE}))
    except RefusedError as error:
        say(str(error))
        raise typer.Exit(1) from error


@contextmanager
def _archive_of(store: Store, folder: Path | None) -> Iterator[Archive]:
    folder = folder or archive_folder(store)
    if folder is None or not folder.is_dir():
        problem = "the archive of this store is not there"
        raise InputError(store.path, problem, "name it with --archive")
    with Archive(store, folder, ArchiveOptions(Mode.NONE)) as archive:
        yield archive


def _check_some_can_be_made(
    path: Path, sources: _Sources, plan: Plan, changed: list[str], wanted: Wanted
) -> None:
    """Raise InputError where a metric would get another meaning, and values of it nowhere."""
    others = [one for one in plan.metrics if one.name not in changed]
    known = make_plan(others, plan.apdex_thresholds_ms, plan.apdex_default_ms)
    new = [one for one in plan.metrics if one.name in changed]
    with Store(path, known) as store:
        if sources.captures:
            check_captures(store, sources.captures)
            refused = refused_redefinitions(store, AllMinutes(), new, *_minutes(wanted))
            refused |= refused_of_captures(new)
        else:
            with _archive_of(store, sources.archive) as archive:
                refused = refused_redefinitions(store, archive, new, *_minutes(wanted))
    for name, problem in refused.items():
        text = f"its meaning has changed, and its newest values cannot be made again: {problem}"
        raise InputError(name, text, "give the new meaning a new name, or start a server with it")


def _check_names(plan: Plan, names: list[str]) -> None:
    known = [one.name for one in plan.metrics]
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(name, "no definition has this name", hint or "see framewalk oal")


def _minutes(wanted: Wanted) -> tuple[int, int]:
    """Return the first minute that is wholly in the range, and the first after it."""
    first = 0 if wanted.since is None else -((EPOCH - wanted.since) // _MINUTE)
    end = _EVER if wanted.until is None else (wanted.until - EPOCH) // _MINUTE
    return first, end


def _tell(store: Path, asked: Recomputation, source: str) -> None:
    for name, reason in sorted(asked.refused.items()):
        warn(f"{name} is not made: {reason}")
    if asked.sampled:
        warn(
            f"{asked.sampled:,} minutes keep what they have: their logs are sampled, and "
            "metrics of a sample are not exact"
        )
    if others := asked.skipped - asked.sampled:
        warn(
            f"{others:,} minutes keep what they have: the archive has not all their logs, "
            "or they have expired"
        )
    if not asked.metrics or not asked.minutes:
        what = "metrics" if not asked.metrics else "minutes"
        problem = f"there are no {what} that {source} can make"
        raise InputError(store, problem, "ask for others, or keep logs with --archive-mode all")
