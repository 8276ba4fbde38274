"""Random lives of pods, seen through random dumps and pieces of a watch: who is named, and who is.

The truth is known second by second. An address is named after the pod that had it wherever that pod
was seen to have it, in whatever order dumps are read; where it was not, nobody can know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framewalk.engine import Entities, read_entities

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1_767_225_600
LENGTH_S = 60
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
    return datetime.fromtimestamp(START_S + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(lives=histories(), seen=looks, is_reversed=st.booleans())
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
                {"ip": [ip] * len(seconds), "time_ns": [(START_S + s) * 10**9 for s in seconds]}
            )
            found = entities.lookup(asked).select("service", "instance").rows()
            assert found == [(f"{life.app}.shop", life.name)] * len(seconds)
