"""What was known of Pods and Services is kept with the metrics, and is enough to recount."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engine_options import engine_options

from framewalk.engine import Entities, Plan, Store, read_entities
from framewalk.engine.kubernetes import (
    Described,
    EntitiesFiles,
    inventories_of,
    sightings_frame,
)
from framewalk.engine.kubernetes.dumps import read_dumps
from framewalk.server.engine.naming import Naming

BEGIN_S = 1_700_000_000


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


def time_of(after_s: int) -> str:
    return dt.datetime.fromtimestamp(BEGIN_S + after_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name: str, ip: str, after_s: int = 0, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": f"uid-{name}-{after_s}",
            "creationTimestamp": time_of(after_s),
            "labels": {"app": "web"} | labels,
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "startTime": time_of(after_s),
            "containerStatuses": [{"state": {"running": {"startedAt": time_of(after_s + 1)}}}],
        },
    }


def service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": time_of(0)},
        "spec": {"selector": {"app": "web"}, "clusterIP": f"10.96.0.{len(name)}"},
    }


def write(path: Path, *items: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({"kind": "List", "items": list(items)}), encoding="utf-8")
    return path


def rows(store: Store, view: str, columns: str) -> list[tuple[Any, ...]]:
    return store.query(f"SELECT {columns} FROM {view} ORDER BY ALL").fetchall()


def described(path: Path) -> Described:
    inventories = read_dumps([path]).inventories
    return Entities.of(inventories).described(inventories)


def test_sightings_come_back(scenario: Path) -> None:
    inventories = read_dumps([scenario]).inventories
    assert inventories_of(sightings_frame(inventories)) == inventories


def test_pods_and_aliases_are_views(tmp_path: Path, plan: Plan) -> None:
    path = write(
        tmp_path / "dump.json",
        pod("web-1", "10.0.0.1", version="v1"),
        pod("web-2", "10.0.0.2", version="v3"),
        service("x"),
        service("x-headless"),
    )
    with Store(":memory:", plan) as store:
        store.keep_entities(None, described(path))
        columns = "service, instance, node, addresses, version, labels['app'], from_time, to_time"
        begin = dt.datetime.fromtimestamp(BEGIN_S, dt.UTC).replace(tzinfo=None)
        assert rows(store, "pods", columns) == [
            ("x.shop", "web-1", "node-1", ["10.0.0.1"], "v1", "web", begin, None),
            ("x.shop", "web-2", "node-1", ["10.0.0.2"], "v3", "web", begin, None),
        ]
        aliases = rows(store, "service_aliases", "alias, service, to_time")
        assert aliases == [("x-headless.shop", "x.shop", None)]


def test_what_changes_is_replaced_and_what_is_forgotten_stays(tmp_path: Path, plan: Plan) -> None:
    first = write(
        tmp_path / "1.json", pod("web-1", "10.0.0.1"), pod("old", "10.0.0.9"), service("x")
    )
    second = write(tmp_path / "2.json", pod("web-1", "10.0.0.7"), service("x"))
    before, after = described(first), described(second)
    with Store(":memory:", plan) as store:
        for one, other in ((None, before), (before, before), (before, after), (after, after)):
            store.keep_entities(one, other)
        assert rows(store, "pods", "instance, addresses") == [
            ("old", ["10.0.0.9"]),
            ("web-1", ["10.0.0.7"]),
        ]
        # All that was ever seen is enough to name late logs.
        (inventory,) = inventories_of(store.kept_sightings()).values()
        names = {history.newest.name for history in inventory.pods}
        assert names == {"old", "web-1"}


def test_a_server_goes_on_with_what_was_known(tmp_path: Path, plan: Plan) -> None:
    """A Pod that is gone from the dump at the next start was there until then."""
    path = write(
        tmp_path / "dump.json", pod("web-1", "10.0.0.1"), pod("web-2", "10.0.0.2"), service("x")
    )
    store_path = tmp_path / "store.duckdb"
    now_s = float(BEGIN_S + 600)
    with Store(store_path, plan) as store, EntitiesFiles([path], now_s) as files:
        store.keep_entities(None, files.described)
    write(path, pod("web-2", "10.0.0.2"), service("x"))
    with Store(store_path, plan) as store:
        earlier = inventories_of(store.kept_sightings())
        with EntitiesFiles([path], now_s + 60, earlier=earlier) as files:
            asked = pl.DataFrame(
                {"ip": ["10.0.0.1", "10.0.0.1"], "time_ns": [(BEGIN_S + 300) * 10**9, 2 * 10**18]}
            )
            assert files.entities.lookup(asked)["instance"].to_list() == ["web-1", None]
            store.keep_entities(None, files.described)
        assert {row[0]: row[1] for row in rows(store, "pods", "instance, to_time")}["web-1"]
        with EntitiesFiles(
            [], now_s + 120, earlier=inventories_of(store.kept_sightings())
        ) as files:
            assert files.entities.lookup(asked)["instance"].to_list() == ["web-1", None]


@pytest.mark.parametrize("is_expired", [True, False])
def test_what_is_over_expires(tmp_path: Path, plan: Plan, *, is_expired: bool) -> None:
    path = write(tmp_path / "dump.json", pod("web-1", "10.0.0.1"), service("x"))
    with EntitiesFiles([path], float(BEGIN_S + 10)) as files:
        earlier = inventories_of(files.described.sightings)
    write(path, pod("web-2", "10.0.0.2"), service("x"))
    with (
        EntitiesFiles([path], float(BEGIN_S + 60), earlier=earlier) as files,
        Store(":memory:", plan) as store,
    ):
        store.keep_entities(None, files.described)
        after_s = 3600 if is_expired else 0
        store.expire(dt.datetime.fromtimestamp(BEGIN_S + after_s, dt.UTC))
        names = [row[0] for row in rows(store, "pods", "instance")]
        assert names == (["web-2"] if is_expired else ["web-1", "web-2"])
        (inventory,) = inventories_of(store.kept_sightings()).values()
        assert len(inventory.pods) == len(names)


def test_entities_are_those_of_the_dump(scenario: Path) -> None:
    """The way through rows makes no difference to any address."""
    inventories = inventories_of(sightings_frame(read_dumps([scenario]).inventories))
    assert Entities.of(inventories).addresses.equals(read_entities(scenario).addresses)


def test_an_engine_without_a_dump_knows_what_one_before_it_knew(tmp_path: Path, plan: Plan) -> None:
    path = write(tmp_path / "dump.json", pod("web-1", "10.0.0.1"), service("x"))
    asked = pl.DataFrame({"ip": ["10.0.0.1"], "time_ns": [(BEGIN_S + 300) * 10**9]})
    for sources in ((path,), ()):
        with (
            Store(tmp_path / "store.duckdb", plan) as store,
            Naming(
                engine_options(tmp_path, entities_paths=sources), store, BEGIN_S + 600
            ) as naming,
        ):
            assert naming.entities.lookup(asked)["service"].to_list() == ["x.shop"]
            naming.keep(0)
            assert rows(store, "pods", "instance") == [("web-1",)]


def test_an_engine_says_when_most_addresses_are_unknown(
    tmp_path: Path, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Store(":memory:", plan) as store,
        Naming(engine_options(tmp_path), store, BEGIN_S) as naming,
    ):
        for elapsed_s, known in ((0, 600), (1, 0), (601, 400), (602, 0), (1300, 0)):
            naming.count(Counter(known=known, unknown=1000 - known), elapsed_s)
    told = [one.facts["known"] for one in caplog.records if "most addresses" in one.message]  # type: ignore[attr-defined]
    assert told == ["20.0%", "0.0%"]
