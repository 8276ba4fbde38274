"""`framewalk replay`: captures into a store."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

# Read by Polars when it is loaded. Its allocator gives memory back at once, and takes it again for
# the next batch; its threads have too little to do in one. Each costs a twentieth of a replay's CPU
# time, and saves no time (two cores).
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000,muzzy_decay_ms:10000")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import typer
from rich.markup import escape

from framewalk.cli.console import byte_progress, minute_progress, print_summary, warn
from framewalk.cli.definitions import ApdexOption, OalOption, PatternsOption
from framewalk.cli.naming import Naming, known_share
from framewalk.cli.suspicion import guarded
from framewalk.cli.worker import Worker, worker
from framewalk.cli.workers import (
    Scheduler,
    SchedulerCaOption,
    SchedulerCertificateOption,
    SchedulerKeyOption,
    SchedulerOption,
    WithoutTlsOption,
    WorkersOption,
    chosen,
    making_of,
    nursery_of,
    pool_of,
)
from framewalk.engine import Store
from framewalk.engine.archive import TEXTS, Archive, ArchiveOptions, Mode, Sampling, Shown
from framewalk.engine.caps import DEFAULT_CAPS, Caps
from framewalk.engine.captures import are_objects, capture_path, find_captures
from framewalk.engine.errors import InputError, StoreError
from framewalk.engine.oal import SCOPES, load_plan_of_files
from framewalk.engine.paths import keep_files_private
from framewalk.engine.remaking import RelatingOptions, relate
from framewalk.engine.runs import (
    COMMIT_LOGS,
    ReadingNote,
    ReplayProgress,
    ReplaySummary,
    Setup,
)
from framewalk.engine.schemas import DEFAULT_MOST_AHEAD_S, NEAR_CHANGE
from framewalk.engine.spreading import ReplayOptions, replay_spread
from framewalk.engine.store import IN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from framewalk.engine.remaking import Making
    from framewalk.engine.spreading import Nursery


class ArchiveMode(StrEnum):
    """The modes in which a replay archives."""

    HTTP = Mode.HTTP.value
    ALL = Mode.ALL.value
    SAMPLED = Mode.SAMPLED.value


DEFAULT_SAMPLING = Sampling()
# Of a request.
_SHOWN = Shown()
_TEXTS = tuple(name for name in TEXTS if getattr(_SHOWN, name))


def replay(
    context: typer.Context,
    captures: Annotated[
        list[Path],
        typer.Argument(
            metavar="CAPTURE",
            parser=capture_path,
            help="Captures (*.capture.arrows), or folders of them; s3://BUCKET/PATH where they are "
            "on object storage.",
            show_default=False,
        ),
    ],
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            "-s",
            metavar="FILE",
            help="The DuckDB file; it is made if it is not there.",
            show_default=False,
        ),
    ],
    entities: Annotated[
        list[Path] | None,
        typer.Option(
            "--entities",
            "-e",
            metavar="[NAME=]PATH",
            help="What `kubectl get pods,services,endpointslices,nodes -A -o yaml` printed (or "
            "-o json): a file or a folder; may be given several times. NAME is the clusterName of "
            "the nodes that it is for. Without it the names that FILE has kept are used.",
            show_default=False,
        ),
    ] = None,
    oal: OalOption = None,
    apdex_thresholds: ApdexOption = None,
    endpoint_patterns: PatternsOption = None,
    commit_logs: Annotated[
        int,
        typer.Option(
            "--commit-logs",
            min=1,
            metavar="LOGS",
            help="Commit after this many logs, in steps of 50,000 messages: fewer lose less "
            "work when cut off, more are a little faster and take more memory.",
        ),
    ] = COMMIT_LOGS,
    max_ahead: Annotated[
        float,
        typer.Option(
            "--max-ahead",
            min=0,
            max=31_536_000,
            metavar="SECONDS",
            help="Drop logs that are further ahead of their arrival, unless most nodes are ahead.",
        ),
    ] = DEFAULT_MOST_AHEAD_S,
    max_endpoints: Annotated[
        int,
        typer.Option(
            "--max-endpoints-per-service",
            min=1,
            metavar="ENDPOINTS",
            help="Endpoints of a service in a minute that have their names; the rest is `others`.",
            rich_help_panel="Caps",
        ),
    ] = DEFAULT_CAPS.endpoints_per_service,
    max_stream_entities: Annotated[
        int,
        typer.Option(
            "--max-entities-per-stream",
            min=1,
            metavar="ENTITIES",
            help="Services and pods that one stream may name; its logs of others are dropped.",
            rich_help_panel="Caps",
        ),
    ] = DEFAULT_CAPS.entities_per_stream,
    max_stream_minutes: Annotated[
        int,
        typer.Option(
            "--max-minutes-per-stream",
            min=1,
            metavar="MINUTES",
            help="Minutes that one stream may have logs of; its logs of others are dropped.",
            rich_help_panel="Caps",
        ),
    ] = DEFAULT_CAPS.minutes_per_stream,
    max_minute_entities: Annotated[
        int,
        typer.Option(
            "--max-entities-per-minute",
            min=1,
            metavar="ENTITIES",
            help="Services and pods named in a minute; logs of others are dropped.",
            rich_help_panel="Caps",
        ),
    ] = DEFAULT_CAPS.entities_per_minute,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--archive",
            metavar="FOLDER",
            help="Keep the logs, too, as Parquet files in a folder of FILE's own.",
            show_default=False,
            rich_help_panel="Archive",
        ),
    ] = None,
    archive_mode: Annotated[
        ArchiveMode,
        typer.Option(
            "--archive-mode",
            help="What is kept: requests with the sums of their reads and writes, some of these, "
            "or each log.",
            rich_help_panel="Archive",
        ),
    ] = ArchiveMode.HTTP,
    archive_one_in: Annotated[
        int,
        typer.Option(
            "--archive-one-in",
            min=1,
            max=10**9,
            metavar="REQUESTS",
            help="With `sampled`: of so many requests that neither failed nor were slow one stays.",
            rich_help_panel="Archive",
        ),
    ] = DEFAULT_SAMPLING.one_in,
    archive_slow_ms: Annotated[
        int,
        typer.Option(
            "--archive-slow-ms",
            min=1,
            max=60_000,
            metavar="MS",
            help="With `sampled`: a request that was being served for so long is slow.",
            rich_help_panel="Archive",
        ),
    ] = DEFAULT_SAMPLING.slow_ms,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    scheduler_ca: SchedulerCaOption = None,
    scheduler_certificate: SchedulerCertificateOption = None,
    scheduler_key: SchedulerKeyOption = None,
    *,
    scheduler_without_tls: WithoutTlsOption = False,
    name_by_owner: Annotated[
        bool,
        typer.Option(
            "--name-by-owner",
            help="Name pods that no Service selects after their name label or their owner "
            "(Deployment, StatefulSet, DaemonSet, Job, CronJob). Without it they are Unknown.",
        ),
    ] = False,
    skip_unknown_scopes: Annotated[
        bool,
        typer.Option(
            "--skip-unknown-scopes",
            help="Leave out definitions of scopes, and disables of metrics, that framewalk "
            "does not have.",
        ),
    ] = False,
) -> None:
    """Turn captures into per-minute metrics in a DuckDB file.

    A capture that the file already holds is not counted again.

    A replay that was cut off goes on where it stopped when it is run again.

    Read the metrics with [bold]framewalk sql[/bold].
    """
    note = store.with_name(f"{store.name}.reading")
    # Before anything is computed: a process with threads must not be forked.
    process = worker(note) if context.obj else Worker.alone()
    # Before the store is made, so that a wrong path leaves none behind.
    paths, count, nursery = _found(captures, workers, scheduler, forks=bool(context.obj))
    plan = load_plan_of_files(
        oal or (),
        apdex_thresholds,
        endpoint_patterns,
        skip_unknown_scopes=skip_unknown_scopes,
        on_warning=lambda warning: warn(str(warning)),
    )
    if not plan.metrics:
        names = ", ".join(map(str, oal or ()))
        raise InputError(names, "no metric is defined here", "give definitions of at least one")
    naming = Naming(entities or (), store, by_owner=name_by_owner)
    if str(store) == IN_MEMORY:
        raise StoreError(store, "would be gone when the command ends", "name a file")
    keep_files_private()
    cluster = Scheduler.named(
        scheduler,
        scheduler_ca,
        scheduler_certificate,
        scheduler_key,
        without_tls=scheduler_without_tls,
    )
    setup = Setup(
        tuple(oal or ()),
        apdex_thresholds,
        skip_unknown_scopes=skip_unknown_scopes,
        endpoint_patterns_path=endpoint_patterns,
        archive_mode=None if archive is None else Mode(archive_mode.value),
        archived_texts=_TEXTS,
    )
    with (
        process.fault_ends_it(),
        pool_of(count, store, cluster, nursery) as pool,
        Store(store, plan) as opened,
    ):
        opened.limit_memory()
        naming.settle(opened)
        guard = guarded(opened, ReadingNote(note), setup, naming.entities)
        started_s = time.monotonic()
        kept = ArchiveOptions(
            Mode(archive_mode.value), sampling=Sampling(archive_one_in, archive_slow_ms)
        )
        with _archive(opened, archive, kept) as logs, byte_progress() as progress:
            options = ReplayOptions(
                on_progress=_Bars(progress, paths),
                commit_logs=commit_logs,
                most_ahead_s=max_ahead,
                caps=Caps(
                    max_endpoints, max_stream_entities, max_stream_minutes, max_minute_entities
                ),
                guard=guard,
                archive=logs,
                roll_up=True,
                when_read=lambda: _relate(opened, logs, making_of(pool)),
            )
            summary = replay_spread(paths, naming.entities, opened, pool, options)
        rows = _summary_rows(summary, opened, time.monotonic() - started_s) + naming.shared()
    for capture in summary.captures:
        if capture.warning:
            for line in capture.warning.splitlines():
                warn(line)
        elif not capture.counters.messages + capture.known_messages:
            warn(f"{capture.path}: this capture holds no messages; nothing was added")
    for doubt in naming.doubts(summary):
        warn(doubt)
    print_summary(rows)


def _found(
    captures: list[Path], workers: int | None, scheduler: str | None, *, forks: bool
) -> tuple[list[Path], int, Nursery | None]:
    """Return the captures that are named, how many are to compute, and what forks those."""
    nursery = None
    if forks and any(map(are_objects, captures)):
        # Before storage is asked: what asks it has threads.
        nursery = nursery_of(workers, scheduler)
    paths = find_captures(captures)
    count = chosen(workers, paths)
    if forks and nursery is None:
        nursery = nursery_of(count, scheduler)
    return paths, count, nursery


@contextmanager
def _archive(
    store: Store, folder: Path | None, options: ArchiveOptions
) -> Iterator[Archive | None]:
    """Open the archive that was asked for; at the end its small files become few."""
    if folder is None:
        yield None
        return
    with Archive(store, folder, options) as archive:
        for problem in archive.problems:
            warn(f"{problem}; what it had is not in the views")
        yield archive
        while archive.compact(time.monotonic()):
            pass


def _relate(store: Store, archive: Archive | None, making: Making) -> None:
    """Have relations of endpoints made of calls, now that both sides of them are there."""
    if archive is None:
        return
    with minute_progress("relations of endpoints") as show:
        options = RelatingOptions(on_progress=show, making=making)
        related = relate(store, archive, options=options)
    if related.minutes:
        store.forget_unused("endpoint_relation")
    if related.crowded:
        warn(
            f"{related.crowded:,} minutes have too many requests to put calls together; "
            "their endpoint relations are what the called sides saw"
        )


class _Bars:
    """One progress bar per capture."""

    def __init__(self, progress: Progress, paths: list[Path]) -> None:
        self._progress = progress
        self._tasks = {path: progress.add_task(escape(path.name), total=None) for path in paths}

    def __call__(self, done: ReplayProgress) -> None:
        task = self._tasks[done.path]
        self._progress.update(task, completed=done.offset_bytes, total=done.size_bytes)


def _summary_rows(summary: ReplaySummary, store: Store, duration_s: float) -> list[tuple[str, str]]:
    counters = summary.counters
    known = sum(capture.known_messages for capture in summary.captures)
    rows = [("captures", f"{len(summary.captures):,}")]
    if known:
        again = "; nothing was added" if not counters.messages else ""
        rows.append(("already stored", f"{known:,} messages{again}"))
    rows += [("messages", f"{counters.messages:,}"), ("logs", f"{counters.logs:,}")]
    rows += [
        (f"dropped: {name.replace('_', ' ')}", f"{count:,}")
        for name, count in counters.dropped.most_common()
    ]
    rows += [
        (f"bad input: {name.replace('_', ' ')}", f"{count:,}")
        for name, count in counters.quality.most_common()
        if name != NEAR_CHANGE
    ]
    if near := counters.quality[NEAR_CHANGE]:
        rows.append(("near a change of hands", f"{near:,} logs"))
    if share := known_share(summary):
        rows.append(("addresses known", share))
    rows.append(("minutes", f"{len(summary.minutes):,}"))
    rows += [
        (f"{view.replace('_', ' ')} entities", f"{count:,}")
        for view, count in _entity_counts(store).items()
    ]
    rate = counters.logs / duration_s if duration_s > 0 else 0
    rows.append(("logs per second", f"{rate:,.0f}"))
    return rows


def _entity_counts(store: Store) -> dict[str, int]:
    rows = store.query("SELECT scope, count(*) FROM entities GROUP BY scope").fetchall()
    counts = dict(rows)
    return {scope.view: counts.get(scope.name, 0) for scope in SCOPES.values()}
