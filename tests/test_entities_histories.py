"""Random lives of pods, seen through random dumps and pieces of a watch: who is named, and who is.

The truth is known second by second. An address is named after the pod that had it wherever that pod
was seen to have it, in whatever order dumps are read; where it was not, nobody can know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from batches import as_batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framewalk.engine import Entities, Plan, load_plan, partial, read_entities
from framewalk.engine.wire import access_log_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_767_225_600
LENGTH_S = 60
# A second of a life is so long: most of a life is far from its ends.
UNIT_S = 7
MOST_SKEW_S = 30
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::3")
APPS = ("web", "kv")

Item = dict[str, Any]


@dataclass
class Life:
    """A pod: what it had from when to when, in seconds, and when it was made, ended and deleted."""

    name: str
    app: str
    created: int
    had: list[tuple[str, int, int]]
    ended: int | None
    deleted: int
    is_exact: bool
    changes: list[int] = field(default_factory=list)

    def holds(self, ip: str, second: int) -> bool:
        return any(one == ip and start <= second < end for one, start, end in self.had)


@st.composite
def histories(draw: st.DrawFn) -> list[Life]:
    """Lives in which nobody has an address that another has."""
    free_from = dict.fromkeys(ADDRESSES, 0)
    lives = []
    for number in range(draw(st.integers(1, 7))):
        created = draw(st.integers(0, LENGTH_S - 10))
        is_exact = draw(st.booleans())
        had = []
        second = created
        for _ in range(draw(st.sampled_from((1, 1, 2) if is_exact else (1,)))):
            ip = draw(st.sampled_from(ADDRESSES))
            start = max(second + draw(st.integers(0, 4)), free_from[ip])
            if start >= LENGTH_S - 2 or any(ip == one for one, _, _ in had):
                break
            end = start + draw(st.integers(1, 25))
            free_from[ip] = end + draw(st.sampled_from((0, 0, 3)))
            had.append((ip, start, end))
            second = end
        if not had:
            continue
        # A sandbox that is made anew has the last address until the pod is over.
        last = had[-1][2]
        is_over = draw(st.booleans())
        kept = draw(st.integers(0, 20)) if is_over else 0
        app = draw(st.sampled_from(APPS))
        ended = last if is_over else None
        life = Life(f"{app}-{number}", app, created, had, ended, last + kept, is_exact)
        life.changes = sorted({created, *(start for _, start, _ in had), last})
        lives.append(life)
    return lives


def clock(second: int) -> str:
    return datetime.fromtimestamp(START_S + UNIT_S * second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_ns(second: int) -> int:
    return (START_S + UNIT_S * second) * 10**9


def version(second: int) -> str:
    return str(1_000 + second * 10)


def shown(life: Life, second: int) -> Item | None:
    """Return a pod as the API server had it at the end of a second."""
    if not life.created <= second < max(life.deleted, life.created + 1):
        return None
    now = [(ip, start) for ip, start, _ in life.had if start <= second]
    ip, got = now[-1] if now else ("", 0)
    is_over = life.ended is not None and second >= life.ended
    started = {"startedAt": clock(got)}
    ended = {**started, "finishedAt": clock(life.ended or 0)}
    state = {"terminated": ended} if is_over else {"running": started}
    status: Item = {"phase": "Succeeded" if is_over else "Running" if now else "Pending"}
    if now:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        status["containerStatuses"] = [{"state": state}]
        if life.is_exact:
            made = {"type": "PodReadyToStartContainers", "status": "True"}
            status["conditions"] = [{**made, "lastTransitionTime": clock(got)}]
    changed = max(change for change in life.changes if change <= second)
    metadata = {
        "name": life.name,
        "namespace": "shop",
        "uid": life.name,
        "labels": {"app": life.app},
        "creationTimestamp": clock(life.created),
        "resourceVersion": version(changed),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}


def listing(lives: list[Life], second: int) -> Item:
    pods = [item for life in lives if (item := shown(life, second)) is not None]
    services = [
        {
            "kind": "Service",
            "metadata": {"name": app, "namespace": "shop", "uid": app},
            "spec": {"selector": {"app": app}},
        }
        for app in APPS
    ]
    metadata = {"resourceVersion": version(second)}
    return {"kind": "List", "metadata": metadata, "items": [*pods, *services]}


def watched(lives: list[Life], begin: int, end: int) -> list[Item]:
    """Return the events of some time, without what was there before."""
    events = []
    for second in range(begin, end):
        for life in lives:
            if second in life.changes and (item := shown(life, second)) is not None:
                events.append({"type": "MODIFIED", "object": item})
            if second == life.deleted and (item := shown(life, second - 1)) is not None:
                item["metadata"]["resourceVersion"] = version(second)
                item["metadata"]["deletionTimestamp"] = clock(second)
                events.append({"type": "DELETED", "object": item})
    return events


@dataclass
class Seen:
    """What was looked at: dumps by their second, and the time that was watched."""

    dumps: list[int]
    watch: tuple[int, int]

    def has_seen(self, life: Life, ip: str, start: int) -> bool:
        """Tell whether a pod was shown with an address that it got at a moment."""
        looks = [
            *self.dumps,
            *(one for one in life.changes if self.watch[0] <= one < self.watch[1]),
        ]
        items = [shown(life, second) for second in looks]
        return any(
            item is not None
            and item["status"].get("podIP") == ip
            and clock(start) in json.dumps(item["status"])
            for item in items
        )


looks = st.builds(
    Seen,
    dumps=st.lists(st.integers(0, LENGTH_S + 20), min_size=1, max_size=5, unique=True),
    watch=st.tuples(st.integers(0, LENGTH_S), st.integers(0, LENGTH_S)).map(
        lambda both: (min(both), max(both))
    ),
)


def read(folder: Path, lives: list[Life], seen: Seen, *, is_reversed: bool) -> Entities:
    paths = []
    for second in seen.dumps:
        path = folder / f"{second}.json"
        path.write_text(json.dumps(listing(lives, second)))
        paths.append(path)
    events = watched(lives, *seen.watch)
    if events:
        path = folder / "events.json"
        path.write_text("\n".join(map(json.dumps, events)))
        paths.append(path)
    return read_entities(*(reversed(paths) if is_reversed else paths))


SLOW_TO_MAKE = [HealthCheck.too_slow, HealthCheck.data_too_large]
SEEN = {"lives": histories(), "seen": looks, "is_reversed": st.booleans()}


@settings(max_examples=150, suppress_health_check=SLOW_TO_MAKE)
@given(**SEEN)
def test_an_address_is_named_after_the_pod_that_had_it(
    tmp_path_factory: pytest.TempPathFactory, lives: list[Life], seen: Seen, *, is_reversed: bool
) -> None:
    entities = read(tmp_path_factory.getbasetemp(), lives, seen, is_reversed=is_reversed)
    for life in lives:
        for ip, start, end in life.had:
            if not seen.has_seen(life, ip, start):
                continue
            seconds = range(start, end)
            asked = pl.DataFrame(
                {"ip": [ip] * len(seconds), "time_ns": [at_ns(s) for s in seconds]}
            )
            found = entities.lookup(asked).select("service", "instance").rows()
            assert found == [(f"{life.app}.shop", life.name)] * len(seconds)


@pytest.mark.long
@settings(max_examples=3_000, suppress_health_check=SLOW_TO_MAKE)
@given(**SEEN)
def test_an_address_in_many_histories(
    tmp_path_factory: pytest.TempPathFactory, lives: list[Life], seen: Seen, *, is_reversed: bool
) -> None:
    inner = test_an_address_is_named_after_the_pod_that_had_it.hypothesis.inner_test
    inner(tmp_path_factory, lives, seen, is_reversed=is_reversed)


# ---- clocks that are wrong ---------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A call of an address at a moment, in seconds: as it was, and as its node has it."""

    life: Life
    ip: str
    true_s: int
    skew_s: int

    @property
    def time_s(self) -> int:
        return self.true_s + self.skew_s

    def is_near(self, moments: list[int], distance_s: int) -> bool:
        return any(abs(self.time_s - UNIT_S * one) <= distance_s for one in moments)

    def message(self, number: int) -> bytes:
        made = pb.EBPFAccessLogMessage()
        made.node.name = "node"
        made.node.bootTime.seconds = START_S + self.time_s
        made.connection.local.kubernetes.serviceName = f"client-{number}"
        made.connection.remote.ip.host = self.ip
        made.kernelLogs.add().write.startTime.offset.offset = 0
        return made.SerializeToString()


def changes_of(lives: list[Life], ip: str) -> list[int]:
    """Return when an address changes hands."""
    return [end for life in lives for one, *ends in life.had if one == ip for end in ends]


def holders_near(lives: list[Life], call: Call) -> set[str]:
    """Return who may be meant by a call, as far as its clock may be wrong, and who had it before.

    When a pod loses an address that nobody has next is not seen by anybody, and one that does not
    say when it got its address may have had it since it was created.
    """
    distance_s = abs(call.skew_s)
    last_s = call.time_s + distance_s
    held = sorted(
        (start if life.is_exact else life.created, end, f"{life.app}.shop")
        for life in lives
        for ip, start, end in life.had
        if ip == call.ip
    )
    held = [one for one in held if UNIT_S * one[0] <= last_s]
    within = {name for _, end, name in held if call.time_s - distance_s < UNIT_S * end}
    before = [name for _, end, name in held if UNIT_S * end <= call.time_s - distance_s]
    return {"Unknown", *within, *before[-1:]}


def counted(entities: Entities, plan: Plan, calls: list[Call]) -> tuple[list[str], int]:
    """Return whom the calls are of, and how many are near a change of hands."""
    received_ns = at_ns(10**5)
    rows = [(1, seq, received_ns, call.message(seq)) for seq, call in enumerate(calls)]
    states = partial([as_batch(rows)], entities, plan)
    relations = states.scopes["service_relation"].scalars
    named = dict(relations.select("source_service", "dest_service").iter_rows())
    called = [named[f"client-{number}"] for number in range(len(calls))]
    return called, states.counters.quality["near_change"]


@cache
def plan_in(folder: Path) -> Plan:
    """No fixture: examples that fail are written with all that a test is given."""
    path = folder / "few.oal"
    path.write_text("calls = from(K8SServiceRelation.*).cpm();\n", encoding="utf-8")
    return load_plan(path)


SKEWED = {
    "lives": histories(),
    "dumps": st.lists(st.integers(0, LENGTH_S), min_size=1, max_size=3, unique=True),
    "skew_s": st.integers(-MOST_SKEW_S, MOST_SKEW_S),
}


@settings(max_examples=12, suppress_health_check=SLOW_TO_MAKE)
@given(**SKEWED)
def test_what_a_wrong_clock_may_have_named_wrongly_is_counted(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[Life],
    dumps: list[int],
    skew_s: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    plan = plan_in(folder)
    seen = Seen(dumps, (0, 2 * LENGTH_S))
    entities = read(folder, lives, seen, is_reversed=False)
    calls = [
        Call(life, ip, true_s, skew_s)
        for life in lives
        for ip, start, end in life.had
        for true_s in range(UNIT_S * start + 3, UNIT_S * end, 11)
    ]
    if not calls:
        return
    named, near = counted(entities, plan, calls)
    moments = {ip: changes_of(lives, ip) for ip in ADDRESSES}
    wrong = []
    for call, name in zip(calls, named, strict=True):
        if name != f"{call.life.app}.shop":
            assert call.is_near(moments[call.ip], abs(skew_s))
            assert name in holders_near(lives, call)
            wrong.append(call)
    if wrong:
        assert counted(entities, plan, wrong)[1] == len(wrong)
    # Created and deleted they may be before and after that.
    ends = [end for life in lives for end in (life.created, life.deleted)]
    far = [one for one in calls if not one.is_near([*ends, *moments[one.ip]], MOST_SKEW_S)]
    assert not far or counted(entities, plan, far)[1] == 0
    assert near <= len(calls) - len(far)
    # What a pod says itself of its only address is known to the second.
    clear = [
        one
        for one in calls
        if one.life.is_exact
        and len(one.life.had) == 1
        and one.is_near(list(one.life.had[0][1:]), MOST_SKEW_S)
    ]
    assert not clear or counted(entities, plan, clear)[1] == len(clear)


@pytest.mark.long
@settings(max_examples=250, suppress_health_check=SLOW_TO_MAKE)
@given(**SKEWED)
def test_wrong_clocks_in_many_histories(
    tmp_path_factory: pytest.TempPathFactory, lives: list[Life], dumps: list[int], skew_s: int
) -> None:
    inner = test_what_a_wrong_clock_may_have_named_wrongly_is_counted.hypothesis.inner_test
    inner(tmp_path_factory, lives, dumps, skew_s)
