"""A table that is updated by changes is the one that is made of everything at once."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framewalk.engine import Entities
from framewalk.engine.kubernetes import Inventory, sightings_frame
from framewalk.engine.kubernetes.inventory import (
    EndpointSlice,
    History,
    Node,
    Pod,
    Port,
    Seen,
    Service,
    Sighting,
    identity_of,
)
from framewalk.engine.kubernetes.table import Table

# Few of everything, so that all have something to do with each other.
IPS = ("10.0.0.1", "10.0.0.2", "10.1.0.3", "fd00::4")
APPS = ("a", "bb", "c")
PORTS = (80, 443)
NAMES = ("x", "yy", "zz")
STEPS = 14


class World:
    """Objects of a cluster that come, change and go, as a watch sees them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.known: dict[tuple[Any, ...], History[Any]] = {}
        self.version = 0

    def step(self) -> dict[tuple[Any, ...], History[Any] | None]:
        """Change some objects, or forget one; returns what is known of them by now."""
        changed: dict[tuple[Any, ...], History[Any] | None] = {}
        for _ in range(self.random.choice((1, 1, 2, 5))):
            if self.known and self.random.random() < 0.08:
                key = self.random.choice(sorted(self.known, key=str))
                del self.known[key]
                changed[key] = None
                continue
            one = self.sighting()
            key = identity_of(one.thing)
            before = self.known.get(key)
            (merged,) = Inventory.of([*(before.sightings() if before else ()), one]).histories
            assert before is None or before.seeing(one) == merged
            self.known[key] = merged if before is None else before.seeing(one)
            changed[key] = self.known[key]
        return changed

    def inventory(self) -> Inventory:
        return Inventory.of(
            sighting for history in self.known.values() for sighting in history.sightings()
        )

    def sighting(self) -> Sighting[Any]:
        draw = self.random
        self.version += 1
        thing = draw.choice((self.pod, self.pod, self.pod, self.service, self.slice, self.node))()
        # Now and then one that is older than what is known.
        version = self.version - draw.choice((0, 0, 0, 0, 3))
        return Sighting(Seen(version, version * 10), thing, version, draw.random() < 0.15)

    def some(self, *values: Any, most: int = 2) -> tuple[Any, ...]:  # noqa: ANN401
        return tuple(self.random.sample(values, self.random.randint(0, most)))

    def labels(self) -> dict[str, str]:
        labels = {"app": self.random.choice(APPS)}
        return labels | ({"tier": "t"} if self.random.random() < 0.4 else {})

    def name(self) -> dict[str, Any]:
        name, uid = self.random.choice(NAMES), self.random.choice(("1", "1", "2"))
        return {"namespace": "shop", "name": name, "uid": uid, "created_ns": int(uid)}

    def pod(self) -> Pod:
        draw = self.random
        since_ns = draw.choice((None, self.version * 10, self.version * 10 - 25))
        is_over = draw.random() < 0.2
        return Pod(
            **self.name(),
            labels=self.labels(),
            start_ns=since_ns,
            got_ns=since_ns,
            is_exact=draw.random() < 0.5,
            ended_ns=self.version * 10 if is_over and draw.random() < 0.5 else None,
            is_over=is_over,
            ip_addresses=self.some(*IPS, most=1),
            host_network=draw.random() < 0.3,
            node=draw.choice(("n1", "n2", "")),
            node_addresses=self.some(*IPS, most=1),
            ports=self.some(*PORTS),
            host_ports=self.some(*PORTS),
            owner=draw.choice((None, ("DaemonSet", "of-a-node"))),
        )

    def service(self) -> Service:
        draw = self.random
        return Service(
            **self.name(),
            selector=self.labels() if draw.random() < 0.8 else {},
            ip_addresses=self.some(*IPS, most=1),
            outer_addresses=self.some(*IPS),
            ports=tuple(
                Port(number, draw.choice((0, 80)), draw.random() < 0.7)
                for number in self.some(*PORTS)
            ),
        )

    def slice(self) -> EndpointSlice:
        service = self.random.choice(NAMES)
        return EndpointSlice(
            **self.name(), service=service, ip_addresses=self.some(*IPS), ports=self.some(*PORTS)
        )

    def node(self) -> Node:
        name, uid = self.random.choice(("n1", "n2")), self.random.choice(("1", "2"))
        networks = self.some("10.9.0.0/16", most=1)
        return Node(name, uid, int(uid), self.some(*IPS), networks)


def same_as_all_at_once(table: Table, inventory: Inventory, *, by_owner: bool) -> None:
    wanted = Entities.of({"c": inventory}, by_owner=by_owner)
    made = Entities(table.lookups())
    assert made.addresses.rows() == wanted.addresses.rows()
    # What is not kept is described again, all of it here.
    described = table.described()
    assert described.pods.rows() == wanted.pods.rows()
    assert described.service_aliases.rows() == wanted.service_aliases.rows()
    assert (
        described.sightings.sort(pl.all()).rows()
        == sightings_frame({"c": inventory}).sort(pl.all()).rows()
    )
    assert table.told() == wanted.told
    assert set(made.lookups.networks.rows()) == set(wanted.lookups.networks.rows())
    asked = (
        pl.DataFrame({"ip": IPS})
        .join(pl.DataFrame({"port": (0, 80, 443)}), how="cross")
        .join(pl.DataFrame({"time_ns": (5, 60, 150, 10**6)}), how="cross")
    )
    asked = asked.with_columns(cluster=pl.lit("c"))
    assert made.lookup(asked).rows() == wanted.lookup(asked).rows()
    assert made.boundaries_ns.to_list() == wanted.boundaries_ns.to_list()


WORLDS = {
    "seed": st.integers(0, 2**32),
    "by_owner": st.booleans(),
    "every": st.sampled_from((1, 4, STEPS)),
}


@settings(max_examples=25)
@given(**WORLDS)
def test_changes_make_the_table_that_all_at_once_makes(
    seed: int, every: int, *, by_owner: bool
) -> None:
    world, table = World(seed), Table(by_owner=by_owner)
    for step in range(1, STEPS + 1):
        table.update("c", world.step())
        if step % every == 0 or step == STEPS:
            same_as_all_at_once(table, world.inventory(), by_owner=by_owner)


@pytest.mark.long
@settings(max_examples=500)
@given(**WORLDS)
def test_changes_of_many_worlds(seed: int, every: int, *, by_owner: bool) -> None:
    inner = test_changes_make_the_table_that_all_at_once_makes.hypothesis.inner_test
    inner(seed, every, by_owner=by_owner)


def test_a_table_that_was_given_away_stays_as_it_is() -> None:
    world, table = World(1), Table()
    table.update("c", world.step())
    before = Entities(table.lookups())
    rows = before.lookups.keys.rows(), before.lookups.intervals.rows()
    for _ in range(STEPS):
        table.update("c", world.step())
        table.lookups()
    assert (before.lookups.keys.rows(), before.lookups.intervals.rows()) == rows
