"""Which entities and endpoints of a minute are told apart, over all senders and commits (caps.py).

A bound on what each minute has is kept; only where a bound is above its cap are the names looked
up in the store and compared. What came first stays. After a restart, and where too much is known
to be kept, the store is asked again.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import polars as pl

from framewalk.engine.caps import (
    BEYOND,
    DEFAULT_CAPS,
    MINUTE_ENTITIES,
    OTHER_ENDPOINTS,
    OTHER_PEERS,
    OTHERS,
    beyond_caps,
)
from framewalk.engine.counters import Counters
from framewalk.engine.schemas import UNKNOWN, UNKNOWN_KEYS
from framewalk.engine.stages import LOGS
from framewalk.engine.states import MINUTE, merge_scope, merge_unknown
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from framewalk.engine.caps import Caps
    from framewalk.engine.stages import OperationStates, PeerStates
    from framewalk.engine.states import ScopeStates, States
    from framewalk.engine.store import StoredNames

_OWNER: Final = "owner"
_MEMBER: Final = "member"
_KEYS: Final = [MINUTE, _OWNER]
_Key: TypeAlias = tuple[int, str]
NAMED_SCHEMA: Final = pl.Schema({MINUTE: pl.Int64, "service": pl.String, "instance": pl.String})
_MEMBERS: Final = pl.Schema({MINUTE: pl.Int64, _OWNER: pl.String, _MEMBER: pl.UInt64})
# Rows that are kept of what is known: bounds, and members (some 30 MB).
_MOST_BOUNDS: Final = 100_000
_MOST_KNOWN: Final = 1_000_000
# Minutes that are likely to get more.
_OPEN_MINUTES: Final = 5
_FEW_MINUTES: Final = 1_000
# A row of peers is two services and two pods.
_NAMED_BY_PEERS: Final = 4
_TELL_EVERY_S: Final = 60
_MINUTES_OF_HOUR: Final = 60
# The columns that hold a service and its endpoint.
_ENDPOINTS: Final = {
    "endpoint": ("service", "endpoint"),
    "endpoint_relation": ("dest_service", "dest_endpoint"),
}


class Admission:
    """Keeps minutes within caps. Calls follow each other as the commits do."""

    def __init__(self, names: StoredNames, caps: Caps = DEFAULT_CAPS) -> None:
        newest = names.newest_minute()
        known_from = newest + 1 if newest is not None else -(2**62)
        self.caps = caps
        self._names = names
        self._entities = _Members(self._entities_of_minutes, known_from)
        self._endpoints = _Members(self._endpoints_of_services, known_from)
        self._unknown = _Members(self._unknown_of_hours, known_from)

    def begin(self) -> None:
        """Begin a commit: everything before is in the store."""
        self._entities.trim()
        self._endpoints.trim()
        self._unknown.trim()

    def has_room(self, named: Sequence[pl.DataFrame]) -> bool:
        """Tell whether all services and pods that are named (`named_in`) are within the cap.

        Those are admitted; where some are not, `admitted` is to be called with all parts.
        """
        rows = pl.concat([pl.DataFrame(schema=NAMED_SCHEMA), *named])
        counted = [
            ((minute, ""), count) for minute, count in rows[MINUTE].value_counts().iter_rows()
        ]
        crowded = self._entities.crowded(counted, self.caps.entities_per_minute)
        if crowded.is_empty():
            return True
        members = (
            rows.join(crowded, on=MINUTE, how="semi", maintain_order="left")
            .select(MINUTE, pl.lit("").alias(_OWNER), _hash("service", "instance"))
            .unique(keep="first", maintain_order=True)
        )
        return self._entities.refused(members, self.caps.entities_per_minute).is_empty()

    def admitted(self, parts: Sequence[PeerStates]) -> tuple[list[PeerStates], Counters]:
        """Drop the logs of services and pods beyond the cap, with the reason MINUTE_ENTITIES.

        The parts' counters have them; they are returned apart, too.
        """
        result, beyond = list(parts), Counters()
        with_logs = [at for at, part in enumerate(parts) if part.operations]
        most = sum(_NAMED_BY_PEERS * parts[at].peers.height for at in with_logs)
        counted = [((minute, ""), most) for minute in _minutes([parts[at] for at in with_logs])]
        crowded = self._entities.crowded(counted, self.caps.entities_per_minute)
        if crowded.is_empty():
            return result, beyond
        named = {at: _hashed(parts[at].peers) for at in with_logs}
        pairs = {at: _pairs(parts[at]).join(crowded, on=MINUTE, how="semi") for at in named}
        # What is named together is admitted together.
        members = pl.concat(
            pairs[at]
            .join(hashes, on="peer")
            .sort("peer")
            .select(MINUTE, pl.lit("").alias(_OWNER), _MEMBER)
            for at, hashes in named.items()
        ).unique(keep="first", maintain_order=True)
        refused = self._entities.refused(members, self.caps.entities_per_minute)
        for at, hashes in named.items():
            named_by = pairs[at].join(hashes, on="peer")
            gone = named_by.join(refused, on=[MINUTE, _MEMBER], how="semi").unique(["peer", MINUTE])
            dropped = Counters(dropped=Counter({MINUTE_ENTITIES: int(gone[LOGS].sum())}))
            result[at] = _without(parts[at], gone.select("peer", MINUTE), dropped)
            beyond += dropped
        return result, beyond

    def with_others(self, states: States) -> tuple[States, Counters]:
        """Give the endpoints beyond the cap of their service the name OTHERS.

        The states' counters have how many names that were (OTHER_ENDPOINTS); they are returned
        apart, too. Of what has no name so many addresses in an hour are told apart.
        """
        states = replace(states, unknown=self._with_other_addresses(states.unknown))
        scopes = _ENDPOINTS.keys() & states.scopes.keys()
        named = [_endpoints(states.scopes[view].scalars, view) for view in scopes]
        if not named:
            return states, Counters()
        members = pl.concat(named).unique()
        counted = members.lazy().group_by(_KEYS).agg(pl.len()).collect().iter_rows()
        crowded = self._endpoints.crowded(
            (((minute, owner), count) for minute, owner, count in counted),
            self.caps.endpoints_per_service,
        )
        if crowded.is_empty():
            return states, Counters()
        members = members.join(crowded, on=_KEYS, how="semi").sort(_MEMBER)
        refused = self._endpoints.refused(members, self.caps.endpoints_per_service)
        if refused.is_empty():
            return states, Counters()
        changed = dict(states.scopes)
        for scope in self._names.plan.scopes:
            view = scope.scope.view
            if view in scopes:
                changed[view] = merge_scope(scope, [_with_others(changed[view], view, refused)])
        counters = Counters(quality=Counter({OTHER_ENDPOINTS: refused.height}))
        total = states.counters + counters
        return replace(states, scopes=MappingProxyType(changed), counters=total), counters

    def _with_other_addresses(self, unknown: pl.DataFrame) -> pl.DataFrame:
        """Add up the unknown peers of an hour beyond the cap, those with fewer logs first."""
        if unknown.is_empty():
            return unknown
        members = unknown.sort("logs", descending=True).select(
            pl.col("hour").alias(MINUTE) * _MINUTES_OF_HOUR,
            pl.lit("").alias(_OWNER),
            pl.struct(UNKNOWN_KEYS).hash().alias(_MEMBER),
        )
        counted = members[MINUTE].value_counts().iter_rows()
        crowded = self._unknown.crowded(
            (((minute, ""), count) for minute, count in counted), self.caps.unknown_peers_per_hour
        )
        if crowded.is_empty():
            return unknown
        members = members.join(crowded, on=_KEYS, how="semi", maintain_order="left")
        refused = self._unknown.refused(members, self.caps.unknown_peers_per_hour)
        is_other = pl.struct(UNKNOWN_KEYS).hash().is_in(refused[_MEMBER].implode())
        others = [
            pl.when(is_other).then(pl.lit(other)).otherwise(name).alias(name)
            for name, other in OTHER_PEERS.items()
        ]
        return merge_unknown([unknown.with_columns(others)])

    def _unknown_of_hours(self, keys: pl.DataFrame) -> pl.DataFrame:
        hours = (keys[MINUTE] // _MINUTES_OF_HOUR).unique().to_list()
        return self._names.unknown_in(hours).select(
            pl.col("hour").alias(MINUTE) * _MINUTES_OF_HOUR,
            pl.lit("").alias(_OWNER),
            pl.struct(UNKNOWN_KEYS).hash().alias(_MEMBER),
        )

    def _entities_of_minutes(self, keys: pl.DataFrame) -> pl.DataFrame:
        held = self._names.entities_in(keys[MINUTE].unique().to_list())
        return held.select(MINUTE, pl.lit("").alias(_OWNER), _hash("service", "instance"))

    def _endpoints_of_services(self, keys: pl.DataFrame) -> pl.DataFrame:
        held = self._names.endpoints_in(keys.rename({_OWNER: "service"}))
        return held.select(
            MINUTE, pl.col("service").alias(_OWNER), pl.col("endpoint").hash().alias(_MEMBER)
        )


def named_in(parts: Sequence[PeerStates]) -> pl.DataFrame:
    """Return the services and pods that parts name in each minute, those named first first.

    Columns: minute, service, and instance, which is null for a service.
    """
    found = [pl.DataFrame(schema=NAMED_SCHEMA)]
    for part in parts:
        if not part.operations:
            continue
        pairs = pl.concat(one.scalars.select("peer", MINUTE) for one in part.operations.values())
        named = pairs.unique().join(_named(part.peers), on="peer").sort("peer")
        found.append(named.select(*NAMED_SCHEMA))
    return pl.concat(found).unique(keep="first", maintain_order=True)


class BeyondCaps:
    """Tells what is beyond the caps, at most once a minute."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._told_s = float("-inf")

    def add(self, counters: Counters, now_s: float) -> None:
        """Take the counters of a commit; `now_s` is of a clock that is never set."""
        dropped = Counter({one: counters.dropped[one] for one in BEYOND})
        quality = Counter({one: counters.quality[one] for one in BEYOND})
        self._counters += Counters(dropped=dropped, quality=quality)
        problem = beyond_caps(self._counters)
        if problem and now_s - self._told_s >= _TELL_EVERY_S:
            self._counters, self._told_s = Counters(), now_s
            remedy = "see which senders make them up; if they are real, set the caps higher"
            tell(
                logging.WARNING, "more is named than the caps allow", problem=problem, remedy=remedy
            )


class _Members:
    """The members of each owner and minute: a bound on how many, near the cap themselves."""

    def __init__(self, held: Callable[[pl.DataFrame], pl.DataFrame], known_from: int) -> None:
        self._held = held
        # Of an owner in an earlier minute the store may have more than is known here.
        self._known_from = known_from
        self._bounds: dict[_Key, int] = {}
        # Those whose members are known one by one.
        self._listed: set[_Key] = set()
        self._known = pl.DataFrame(schema=_MEMBERS)

    def trim(self) -> None:
        """Forget what is too much; the store has it."""
        for open_minutes in (_OPEN_MINUTES, 0):
            is_much = len(self._bounds) > _MOST_BOUNDS or self._known.height > _MOST_KNOWN
            if not is_much:
                return
            newest = max(minute for minute, _ in self._bounds)
            self._known_from = max(self._known_from, newest + 1 - open_minutes)
            self._bounds = {
                key: bound for key, bound in self._bounds.items() if key[0] >= self._known_from
            }
            self._listed = {key for key in self._listed if key[0] >= self._known_from}
            self._known = self._known.filter(pl.col(MINUTE) >= self._known_from)

    def crowded(self, counted: Iterable[tuple[_Key, int]], most: int) -> pl.DataFrame:
        """Note how many members each owner may get; return the owners that may have too many."""
        crowded = []
        for key, count in counted:
            before = self._bounds.get(key)
            is_new = before is None and key[0] < self._known_from
            if is_new or key in self._listed or (before or 0) + count > most:
                crowded.append(key)
            else:
                self._bounds[key] = (before or 0) + count
        return pl.DataFrame(crowded, schema={MINUTE: pl.Int64, _OWNER: pl.String}, orient="row")

    def refused(self, members: pl.DataFrame, most: int) -> pl.DataFrame:
        """Return the members of crowded owners that have no room; each is given once, in order."""
        owners = members.select(_KEYS).unique()
        new = [key not in self._listed for key in owners.iter_rows()]
        asked = owners.filter(pl.Series(new, dtype=pl.Boolean))
        if asked.height:
            self._known = pl.concat([self._known, self._held(asked).cast(_MEMBERS)])
        count = pl.len().cast(pl.Int64)
        held = self._known.join(owners, on=_KEYS, how="semi").group_by(_KEYS).agg(before=count)
        placed = (
            members.join(self._known, on=[*_KEYS, _MEMBER], how="anti", maintain_order="left")
            .join(held, on=_KEYS, how="left", maintain_order="left")
            .with_columns(
                place=pl.int_range(pl.len(), dtype=pl.Int64).over(_KEYS)
                + pl.col("before").fill_null(0)
            )
        )
        has_room = placed["place"] < most
        admitted = placed.filter(has_room).select(members.columns)
        self._known = pl.concat([self._known, admitted.select(*_MEMBERS)])
        self._listed.update(owners.iter_rows())
        self._bounds.update(dict.fromkeys(owners.iter_rows(), most))
        return placed.filter(~has_room).select(members.columns)


def _hash(*columns: str) -> pl.Expr:
    return (
        pl.struct(pl.col(name).alias(str(at)) for at, name in enumerate(columns))
        .hash()
        .alias(_MEMBER)
    )


def _hashed(peers: pl.DataFrame) -> pl.DataFrame:
    """Return `peer` and `member`, the services and pods of each row of peers."""
    return _named(peers).select("peer", _hash("service", "instance"))


def _named(peers: pl.DataFrame) -> pl.DataFrame:
    """Return `peer`, `service` and `instance`, the services and pods of each row of peers."""
    rows = peers.with_row_index("peer")
    sides = [(f"{side}_service", f"{side}_instance") for side in ("local", "remote")]
    parts = []
    for service, instance in sides:
        known = rows.filter(pl.col(service) != UNKNOWN)
        parts.append(known.select("peer", service=service, instance=pl.lit(None, pl.String)))
        pods = known.filter(pl.col(instance).is_not_null())
        parts.append(pods.select("peer", service=service, instance=instance))
    return pl.concat(parts)


def _minutes(parts: Sequence[PeerStates]) -> Sequence[int]:
    """Return the minutes that parts are about, or all between the first and the last if few."""
    columns = [one.scalars[MINUTE] for part in parts for one in part.operations.values()]
    first = [one for one in (column.min() for column in columns) if isinstance(one, int)]
    last = [one for one in (column.max() for column in columns) if isinstance(one, int)]
    if not first:
        return ()
    if max(last) - min(first) < _FEW_MINUTES:
        return range(min(first), max(last) + 1)
    return pl.concat([column.unique() for column in columns]).unique().to_list()


def _pairs(part: PeerStates) -> pl.DataFrame:
    """Return `peer`, `minute` and how many `logs` they have."""
    rows = pl.concat(one.scalars.select("peer", MINUTE, LOGS) for one in part.operations.values())
    return rows.group_by("peer", MINUTE).agg(pl.col(LOGS).sum())


def _without(part: PeerStates, pairs: pl.DataFrame, dropped: Counters) -> PeerStates:
    """Leave out pairs of peers and minute."""
    gone = pairs.with_columns(is_gone=pl.lit(value=True))

    def kept(states: OperationStates) -> pl.Series:
        own = states.scalars.select("peer", MINUTE)
        found = own.join(gone, on=own.columns, how="left", maintain_order="left")
        return found["is_gone"].is_null()

    operations = {name: one.only(kept(one)) for name, one in part.operations.items()}
    logs = None if part.kept is None else part.kept.without(pairs)
    return replace(part, operations=operations, counters=part.counters + dropped, kept=logs)


def _endpoints(frame: pl.DataFrame, view: str) -> pl.DataFrame:
    service, endpoint = _ENDPOINTS[view]
    return frame.select(
        MINUTE, pl.col(service).alias(_OWNER), pl.col(endpoint).hash().alias(_MEMBER)
    )


def _with_others(states: ScopeStates, view: str, refused: pl.DataFrame) -> ScopeStates:
    _, endpoint = _ENDPOINTS[view]
    beyond = refused.with_columns(is_refused=pl.lit(value=True))

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        named = _endpoints(frame, view)
        found = named.join(beyond, on=named.columns, how="left", maintain_order="left")
        is_refused = found["is_refused"].fill_null(value=False)
        name = pl.when(is_refused).then(pl.lit(OTHERS)).otherwise(endpoint)
        return frame.with_columns(name.alias(endpoint))

    keyed = {state: renamed(frame) for state, frame in states.keyed.items()}
    return replace(states, scalars=renamed(states.scalars), keyed=MappingProxyType(keyed))
