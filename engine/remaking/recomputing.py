"""Metrics made again out of the archive: for definitions that are new, and for repaired ones.

States of whole minutes are replaced, some minutes in a transaction each. What is replaced are all
states that a metric needs. Another metric that needs some of these and others beside is made again
with it, so that no row has a part of what belongs together.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from framewalk.engine.archive import NEAR_MINUTES, NS_PER_MINUTE
from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.oal import is_former, make_plan
from framewalk.engine.remaking.making import VIEW, Here
from framewalk.engine.remaking.naming import endpoints_within_caps
from framewalk.engine.remaking.reading import Wanted
from framewalk.engine.remaking.relating import RelatingOptions, relate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from framewalk.engine.archive import Archive, ArchivedLogs
    from framewalk.engine.oal import Metric, Plan
    from framewalk.engine.remaking.making import MadeMetrics, Making
    from framewalk.engine.remaking.relating import Related
    from framewalk.engine.store import Store

_MINUTES_PER_HOUR: Final = 60
_MINUTES_PER_DAY: Final = 1440
# Logs whose states are made and written at once, unless a minute has more.
_LOGS_AT_ONCE: Final = 4_000_000
_MADE: Final = "internal.recomputed_minutes"
_REQUESTS_ALONE: Final = "it needs logs of connections, reads or writes, and only requests are kept"
_GAP: Final = (
    "it means something else up to {}, and the minutes before that cannot be made again: "
    "they are not asked for, or the archive has not all their logs"
)
_NEWEST: Final = "the newest minute is not asked for, or the archive has not all its logs"
_BESIDE: Final = "it shares states with {}, which needs logs that are not kept"


@dataclass(frozen=True, slots=True)
class Recomputation:
    """What is to be made again: the metrics, of which minutes (since 1970).

    `refused` says of a metric why it cannot be. `skipped` minutes keep what they have: the archive
    has not all their logs, of `sampled` of them only a sample, or they have expired; or they are of
    the time before such minutes, and what is made means something else there.
    """

    metrics: tuple[Metric, ...]
    minutes: tuple[int, ...]
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    skipped: int = 0
    sampled: int = 0

    @property
    def name(self) -> str:
        """What tells it from others."""
        texts = sorted(str(metric.definition) for metric in self.metrics)
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What was made: minutes, of so many logs; `known` minutes had been made before.

    `has_more` tells whether some are left for the next time.
    """

    minutes: int = 0
    logs: int = 0
    known: int = 0
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class RecomputingOptions:
    """How much at once: logs, and endpoints of a service that keep their names.

    With `at_most_once` some minutes may be left for the next time. `on_progress` is told how many
    minutes are done, of how many. `making` says who computes them; what is made is the same.
    """

    endpoints_per_service: int = DEFAULT_CAPS.endpoints_per_service
    logs_at_once: int = _LOGS_AT_ONCE
    at_most_once: bool = False
    on_progress: Callable[[int, int], None] = lambda _done, _all: None
    making: Making = field(default_factory=Here)


class Source(Protocol):
    """What tells which logs are there: an archive, or what stands for one."""

    def whole_minutes(self, asked: Sequence[int], near: int = 0) -> list[int]:
        """Return the minutes of which each log is there."""

    def requests_only_minutes(self, first: int, last: int) -> set[int]:
        """Return the minutes of which only requests are there."""

    def sampled_minutes(self, first: int, last: int) -> set[int]:
        """Return the minutes of which only a sample is there."""


def plan_recomputation(
    store: Store, archive: Source, names: Collection[str], first: int, end: int
) -> Recomputation:
    """Find out what can be made again of the minutes from one to before another.

    Without `names` all metrics of the store's plan are. One that means something else before a
    minute can be made from any minute on up to that one: without a gap.
    """
    stored = _stored_minutes(store)
    asked = [minute for minute in stored if first <= minute < end]
    minutes = whole_minutes(store, archive, asked)
    begins = store.meanings_begin()
    wanted = [
        one
        for one in store.plan.metrics
        if (one.name in names if names else not is_former(one.name))
    ]
    lacking = archive.requests_only_minutes(first, end - 1).intersection(minutes)
    refused = {one.name: _REQUESTS_ALONE for one in wanted if lacking and _needs_kernel(one)}
    refused |= {
        one.name: _GAP.format(_time(begins[one.name]))
        for one in wanted
        if one.name in begins and one.name not in refused
        if max(asked, default=0) < begins[one.name]
        if not _joins(stored, set(minutes), begins[one.name])
    }
    chosen = [one for one in wanted if one.name not in refused]
    chosen, beside = _closed(chosen, store.known_plan().metrics, has_kernel=not lacking)
    refused |= {name: why for name, why in beside.items() if not is_former(name)}
    own = [one for one in chosen if one in wanted]
    if own and all(one.name in begins for one in own):
        # What is before a gap would not be shown.
        from_minute = min(
            (_stretch(stored, set(minutes), begin) or [begin])[0]
            for begin in (begins[one.name] for one in own)
        )
        minutes = [minute for minute in minutes if minute >= from_minute]
    skipped = len(asked) - len(minutes)
    sampled = len(archive.sampled_minutes(first, end - 1).intersection(asked))
    return Recomputation(tuple(chosen), tuple(minutes), MappingProxyType(refused), skipped, sampled)


def refused_redefinitions(
    store: Store, archive: Source, metrics: Iterable[Metric], first: int, end: int
) -> dict[str, str]:
    """Return which metrics could not get another meaning of any stored minute, and why.

    Of the newest minutes all logs are needed: what is made begins before them.
    """
    stored = _stored_minutes(store)
    if not stored:
        return {}
    lacking = archive.requests_only_minutes(stored[-1], stored[-1])
    is_asked = first <= stored[-1] < end
    if not is_asked or not whole_minutes(store, archive, stored[-1:]):
        return {one.name: _NEWEST for one in metrics}
    return {one.name: _REQUESTS_ALONE for one in metrics if lacking and _needs_kernel(one)}


def whole_minutes(store: Store, archive: Source, asked: Sequence[int], near: int = 0) -> list[int]:
    """Return those of some minutes that can be made again: all their logs are archived."""
    whole = archive.whole_minutes(asked, near)
    kept_from = store.first_kept_minute()
    return [minute for minute in whole if kept_from is None or minute >= kept_from]


def recompute(
    store: Store,
    archive: Archive,
    asked: Recomputation,
    options: RecomputingOptions | None = None,
) -> Recomputed:
    """Make metrics again; one that was cut off goes on where it stopped when it is called again.

    The newest minutes come first. What metrics mean now begins with them, in the transaction that
    makes them. Relations between endpoints are made of calls, as always. Raises StoreError.
    """
    options = options or RecomputingOptions()
    store.run(f"CREATE TABLE IF NOT EXISTS {_MADE} (task VARCHAR NOT NULL, minute BIGINT NOT NULL)")
    rows = store.run(f"SELECT minute FROM {_MADE} WHERE task = ?", [asked.name])
    known = {minute for (minute,) in rows}
    left = [minute for minute in asked.minutes if minute not in known]
    plan = plan_of([one for one in asked.metrics if one.scope.view != VIEW], store.plan)
    maker = _Maker(store, archive.logs(), plan, asked.name, options)
    done = Recomputed(known=len(asked.minutes) - len(left))
    for made in maker.made(left):
        known.update(made.minutes)
        maker.write(made, known)
        done = replace(done, minutes=done.minutes + len(made.minutes), logs=done.logs + made.logs)
        options.on_progress(done.known + done.minutes, len(asked.minutes))
        if options.at_most_once and done.minutes < len(left):
            return replace(done, has_more=True)
    related = [one.name for one in asked.metrics if one.scope.view == VIEW]
    if related and asked.minutes:
        if options.at_most_once and done.minutes:
            return replace(done, has_more=True)
        found = _related(store, archive, asked, options)
        # Each log is one, also where metrics and relations are made of it.
        logs = done.logs + (0 if "http" in Wanted.of(plan).columns else found.requests)
        most = max(done.minutes, found.minutes)
        done = replace(done, minutes=most, logs=logs, has_more=found.has_more)
        if done.has_more:
            return done
    with store.transaction():
        if related:
            near = whole_minutes(store, archive, asked.minutes, NEAR_MINUTES)
            move_begins(store, related, set(near))
        store.run(f"DELETE FROM {_MADE} WHERE task IN (?, ?)", [asked.name, _marked(asked.name)])
    return done


def forget_unfinished(store: Store) -> None:
    """Forget what was made of recomputations that were cut off: definitions have changed since."""
    store.run(f"DROP TABLE IF EXISTS {_MADE}")


def _related(
    store: Store,
    archive: Archive,
    asked: Recomputation,
    options: RecomputingOptions,
) -> Related:
    """Have the relations of minutes made of calls, which are noted as changed once."""
    task = _marked(asked.name)
    if not store.run(f"SELECT 1 FROM {_MADE} WHERE task = ?", [task]):
        archive.note_changed(asked.minutes)
        store.run(f"INSERT INTO {_MADE} VALUES (?, 0)", [task])
    relating = RelatingOptions(
        endpoints_per_service=options.endpoints_per_service,
        at_most_once=options.at_most_once,
        on_progress=options.on_progress,
        making=options.making,
    )
    return relate(store, archive, max(asked.minutes) + 1, relating)


def _marked(task: str) -> str:
    return f"{task} relations"


def move_begins(store: Store, names: Iterable[str], made: set[int]) -> None:
    """Have what metrics mean begin with the first of the minutes that are made without a gap.

    To be called within the transaction that makes them.
    """
    begins = store.meanings_begin()
    changed = [name for name in names if name in begins]
    if not changed:
        return
    stored, kept_from = _stored_minutes(store), store.first_kept_minute()
    moved: dict[int | None, list[str]] = {}
    for name in changed:
        if not _joins(stored, made, begins[name]):
            continue
        stretch = _stretch(stored, made, begins[name])
        earlier = [minute for minute in stored if minute < (stretch or [begins[name]])[0]]
        begin = _border(earlier[-1], stretch[0]) if earlier else kept_from
        moved.setdefault(begin, []).append(name)
    for begin, own in moved.items():
        store.begin_meanings(own, begin)


def _stretch(stored: Sequence[int], made: Collection[int], begin: int) -> list[int]:
    """Return the minutes up to one that are all made, without a gap."""
    below = [minute for minute in stored if minute < begin]
    gap = max((minute for minute in below if minute not in made), default=-1)
    return [minute for minute in below if minute > gap]


def _joins(stored: Sequence[int], made: Collection[int], begin: int) -> bool:
    """Tell whether the last minute before one is made, if there is any."""
    below = [minute for minute in stored if minute < begin]
    return not below or below[-1] in made


def _border(last: int, first: int) -> int:
    """Return the minute between two where a meaning begins: that of a day or an hour, if any is."""
    for length in (_MINUTES_PER_DAY, _MINUTES_PER_HOUR):
        if (border := first - first % length) > last:
            return border
    return first


def _time(minute: int) -> str:
    return f"{dt.datetime.fromtimestamp(minute * 60, dt.UTC):%Y-%m-%d %H:%M}"


class _Maker:
    """Makes the metrics of a plan of some minutes at a time."""

    def __init__(
        self, store: Store, logs: ArchivedLogs, plan: Plan, task: str, options: RecomputingOptions
    ) -> None:
        self._store = store
        self._logs = logs
        self._plan = plan
        self._wanted = Wanted.of(plan)
        self._task = task
        self._options = options

    def made(self, minutes: Sequence[int]) -> Iterator[MadeMetrics]:
        """Yield what is made of minutes, a part at a time."""
        return self._options.making.metrics(self._logs, self._plan, self._parts(minutes))

    def _parts(self, minutes: Sequence[int]) -> Iterator[list[int]]:
        """Yield minutes of one hour, fewer where there are many logs; the newest first."""
        if not self._plan.scopes:
            return
        hours: dict[int, list[int]] = {}
        for minute in minutes:
            hours.setdefault(minute // _MINUTES_PER_HOUR, []).append(minute)
        for hour, own in sorted(hours.items(), reverse=True):
            first_ns = hour * _MINUTES_PER_HOUR * NS_PER_MINUTE
            end_ns = first_ns + _MINUTES_PER_HOUR * NS_PER_MINUTE
            logs = sum(
                file.rows
                for kind in self._wanted.columns
                for file in self._logs.files(kind, first_ns, end_ns)
            )
            size = max(len(own) // (logs // self._options.logs_at_once + 1), 1)
            for end in range(len(own), 0, -size):
                yield own[max(end - size, 0) : end]

    def write(self, made: MadeMetrics, known: set[int]) -> None:
        """Write what was made, and note it; `known` are all minutes that are made by then."""
        names, most = self._store.names, self._options.endpoints_per_service
        found = endpoints_within_caps(made.states, self._plan, names, most)
        parts = [(scope, found.scopes[scope.scope.view]) for scope in self._plan.scopes]

        def also() -> None:
            sql = f"INSERT INTO {_MADE} SELECT ?, unnest(?::BIGINT[])"
            self._store.run(sql, [self._task, list(made.minutes)])
            move_begins(self._store, [one.name for one in self._plan.metrics], known)

        self._store.replace(made.minutes, parts, also=also)


def plan_of(metrics: Iterable[Metric], like: Plan) -> Plan:
    """Return a plan of metrics, without scopes that have none."""
    others = (like.apdex_thresholds_ms, like.apdex_default_ms, like.endpoint_patterns)
    plan = make_plan(metrics, *others)
    return replace(plan, scopes=tuple(scope for scope in plan.scopes if scope.metrics))


def _needs_kernel(metric: Metric) -> bool:
    return any(
        part.selection.operation != "http" for state in metric.states for part in state.parts
    )


def _closed(
    wanted: Sequence[Metric], known: Sequence[Metric], *, has_kernel: bool
) -> tuple[list[Metric], dict[str, str]]:
    """Add what shares states, so that each metric is made whole; say why some cannot be."""
    chosen, refused = {metric.name: metric for metric in wanted}, dict[str, str]()
    while True:
        states = {(one.scope.view, state.name) for one in chosen.values() for state in one.states}
        shared = [
            one
            for one in known
            if one.name not in chosen
            and sum((one.scope.view, state.name) in states for state in one.states) > 0
            and not all((one.scope.view, state.name) in states for state in one.states)
        ]
        lost = [one for one in shared if not has_kernel and _needs_kernel(one)]
        if lost:
            own = {(one.scope.view, state.name): one.name for one in lost for state in one.states}
            for name, one in list(chosen.items()):
                others = [own.get((one.scope.view, state.name)) for state in one.states]
                if other := next(filter(None, others), None):
                    refused[name] = _BESIDE.format(other)
                    del chosen[name]
        elif shared:
            chosen |= {one.name: one for one in shared}
        else:
            return list(chosen.values()), refused


def _stored_minutes(store: Store) -> list[int]:
    """Return the minutes that have something."""
    union = " UNION ".join(
        f"SELECT time_bucket FROM internal.service_relation_{table}"
        for table in ("states", "minutes")
    )
    sql = f"SELECT DISTINCT epoch(time_bucket)::BIGINT // 60 FROM ({union}) ORDER BY 1"
    return [minute for (minute,) in store.run(sql)]
