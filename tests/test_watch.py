"""A cluster that is watched: the table is right whatever the API server does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from api_server import PATHS, ApiServer
from engine_options import engine_options
from waiting import DEADLINE_S, wait_until

from framewalk.engine import Plan, Store
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes import (
    ClusterAccess,
    ClusterWatch,
    EntitiesRecorder,
    LiveEntities,
    Timing,
    read_entities,
)
from framewalk.server.engine.naming import Naming

QUICK = Timing(first_pause_s=0.02, longest_pause_s=0.1, silent_s=60, answer_s=60, connect_s=60)


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


def at(s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(s))


def metadata(name: str, uid: str) -> dict[str, Any]:
    created = at(time.time() - 3600)
    return {"namespace": "shop", "name": name, "uid": uid, "creationTimestamp": created}


def pod(name: str, ip: str, app: str, uid: str = "") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {**metadata(name, uid or name), "labels": {"app": app}},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "startTime": at(time.time() - 3600),
            "conditions": [
                {
                    "type": "PodReadyToStartContainers",
                    "status": "True",
                    "lastTransitionTime": at(time.time() - 3600),
                }
            ],
        },
    }


def service(name: str, ip: str, app: str) -> dict[str, Any]:
    spec = {"clusterIP": ip, "selector": {"app": app}, "ports": [{"port": 80}]}
    return {"kind": "Service", "apiVersion": "v1", "metadata": metadata(name, name), "spec": spec}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.put(service("cart", "10.96.0.1", "cart"))
        server.put(pod("cart-1", "10.0.0.1", "cart"))
        yield server


def watching(api: ApiServer, folder: Path, *paths: Path) -> LiveEntities:
    access = ClusterAccess(api.kubeconfig(folder), timing=QUICK)
    return LiveEntities(paths, time.time(), accesses=[access])


def names(live: LiveEntities, *ips: str, time_s: float | None = None) -> list[str | None]:
    time_ns = int((time_s or time.time()) * 1e9)
    asked = pl.DataFrame({"ip": ips, "time_ns": [time_ns] * len(ips), "port": [80] * len(ips)})
    found = live.entities.lookup(asked)
    return list(found["service"])


def wait_for(live: LiveEntities, **expected: str | None) -> None:
    ips = [ip.replace("_", ".").lstrip("a") for ip in expected]
    wait_until(lambda: names(live, *ips) == list(expected.values()))


def test_what_is_listed_and_what_comes_changes_and_goes(api: ApiServer, tmp_path: Path) -> None:
    with watching(api, tmp_path) as live:
        assert live.wait_listed(DEADLINE_S)
        wait_for(live, a10_0_0_1="cart.shop", a10_96_0_1="cart.shop")
        api.put(pod("pay-1", "10.0.0.2", "pay"))
        api.put(service("pay", "10.96.0.2", "pay"))
        wait_for(live, a10_0_0_2="pay.shop", a10_96_0_2="pay.shop")
        api.put(service("pay", "10.96.0.2", "another"))
        wait_for(live, a10_0_0_2=None)
        api.delete("Pod", "shop/cart-1")
        wait_for(live, a10_0_0_1=None)
        # Late logs find the owner of their time.
        assert names(live, "10.0.0.1", time_s=time.time() - 600) == ["cart.shop"]
    assert api.lists == dict.fromkeys(PATHS, 1)


def test_pages(tmp_path: Path) -> None:
    with ApiServer(page_objects=3) as api:
        api.put(service("cart", "10.96.0.1", "cart"))
        for number in range(10):
            api.put(pod(f"cart-{number}", f"10.0.0.{number}", "cart"))
        with watching(api, tmp_path) as live:
            ips = [f"10.0.0.{number}" for number in range(10)]
            wait_until(lambda: names(live, *ips) == ["cart.shop"] * 10)


def test_a_watch_that_is_cut_goes_on_where_it_was(api: ApiServer, tmp_path: Path) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        for number in range(2, 6):
            wait_until(lambda: len(api.watched["Pod"]) > 0)
            before = len(api.watched["Pod"])
            api.cut_watches()
            api.put(pod(f"cart-{number}", f"10.0.0.{number}", "cart"))
            wait_until(lambda: names(live, f"10.0.0.{number}") == ["cart.shop"])  # noqa: B023
            wait_until(lambda: len(api.watched["Pod"]) > before)  # noqa: B023
    assert api.lists == dict.fromkeys(PATHS, 1)
    resumed = [int(version) for version in api.watched["Pod"]]
    assert resumed == sorted(resumed)


@pytest.mark.parametrize("how", ["status", "event"])
def test_gone_is_listed_again_and_what_was_missed_is_gone(
    api: ApiServer, tmp_path: Path, how: str
) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        if how == "status":
            api.stop()
        api.delete("Pod", "shop/cart-1")
        api.put(pod("pay-1", "10.0.0.1", "pay"))
        api.put(service("pay", "10.96.0.2", "pay"))
        api.compact()
        if how == "status":
            api.start()
        else:
            status = {"kind": "Status", "code": 410, "message": "too old"}
            api.say(json.dumps({"type": "ERROR", "object": status}).encode())
            api.cut_watches()
        wait_for(live, a10_0_0_1="pay.shop", a10_96_0_2="pay.shop")
        assert api.lists["Pod"] >= 2


def test_a_server_that_is_away_leaves_what_was_known(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        api.stop()
        wait_until(lambda: "cluster is not watched" in caplog.text)
        assert names(live, "10.0.0.1") == ["cart.shop"]
        api.put(pod("cart-2", "10.0.0.2", "cart"))
        api.start()
        wait_for(live, a10_0_0_2="cart.shop")
    # It is tried again and again, and told once for each problem.
    assert caplog.text.count("cluster is not watched") <= 8


def test_a_server_that_comes_later(tmp_path: Path) -> None:
    with ApiServer() as api:
        api.stop()
        with watching(api, tmp_path) as live:
            assert not live.wait_listed(0)
            assert names(live, "10.0.0.1") == [None]
            api.put(service("cart", "10.96.0.1", "cart"))
            api.put(pod("cart-1", "10.0.0.1", "cart"))
            api.start()
            wait_for(live, a10_0_0_1="cart.shop")


def test_a_new_token_is_read(api: ApiServer, tmp_path: Path) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        api.token = "second"  # noqa: S105
        api.cut_watches()
        api.put(pod("cart-2", "10.0.0.2", "cart"))
        wait_until(lambda: api.statuses.count(401) > 2)
        assert names(live, "10.0.0.1", "10.0.0.2") == ["cart.shop", None]
        (tmp_path / "token").write_text("second")
        wait_for(live, a10_0_0_2="cart.shop")


@pytest.mark.parametrize("code", [403, 410, 429, 500, 503])
def test_a_refused_list_is_asked_for_again(api: ApiServer, tmp_path: Path, code: int) -> None:
    api.refused = dict.fromkeys(PATHS, code)
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
    assert api.statuses == [code] * 4


@pytest.mark.parametrize(
    "line",
    [b"no json", b"[]", b'{"type":"ADDED"}', b'{"type":"ADDED","object":7}', b'{"type":"NEW"}'],
)
def test_lines_that_are_none_cost_themselves(api: ApiServer, tmp_path: Path, line: bytes) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        api.say(line)
        api.put(pod("cart-2", "10.0.0.2", "cart"))
        wait_for(live, a10_0_0_1="cart.shop", a10_0_0_2="cart.shop")


def test_an_odd_object_costs_itself_and_a_warning(api: ApiServer, tmp_path: Path) -> None:
    odd = pod("odd", "not an address", "cart")
    api.put(odd)
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        assert "Pod shop/odd" in str(live.entities.warnings)
        api.put({**odd, "status": 7})
        api.put(pod("cart-2", "10.0.0.2", "cart"))
        wait_for(live, a10_0_0_2="cart.shop")


def test_another_cluster_behind_the_same_address(api: ApiServer, tmp_path: Path) -> None:
    with watching(api, tmp_path) as live:
        wait_for(live, a10_0_0_1="cart.shop")
        api.stop()
        for kind in PATHS:
            api.objects[kind].clear()
            api.events[kind].clear()
        api.version = 5
        api.put(pod("pay-1", "10.0.0.2", "pay"))
        api.put(service("pay", "10.96.0.2", "pay"))
        api.oldest = 10**9
        api.start()
        wait_until(lambda: api.statuses.count(410) >= len(PATHS))
        api.oldest = 0
        wait_for(live, a10_0_0_1=None, a10_0_0_2="pay.shop", a10_96_0_1=None)


def dump_of(folder: Path, *pods: dict[str, Any]) -> Path:
    """Write a dump from before all that the API server has."""
    for one in pods:
        one["metadata"]["resourceVersion"] = "1"
    dump = folder / "dump.yaml"
    dump.write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": list(pods)}))
    return dump


@pytest.mark.parametrize("last", list(PATHS))
def test_the_newer_of_a_dump_and_the_watch_wins(api: ApiServer, tmp_path: Path, last: str) -> None:
    dump = dump_of(tmp_path, pod("cart-1", "10.0.0.9", "cart"), pod("pay-1", "10.0.0.7", "cart"))
    api.held = {last}
    with watching(api, tmp_path, dump) as live:
        if last == "Pod":
            # What is not listed is as the dump has it.
            wait_for(live, a10_0_0_1=None, a10_0_0_9="cart.shop", a10_0_0_7="cart.shop")
        elif last != "Service":
            wait_for(live, a10_0_0_1="cart.shop", a10_0_0_9=None, a10_0_0_7=None)
        api.release(last)
        assert live.wait_listed(DEADLINE_S)
        wait_for(live, a10_0_0_1="cart.shop", a10_0_0_9=None, a10_0_0_7=None)
        # Late logs find what the dump had.
        assert names(live, "10.0.0.7", time_s=time.time() - 600) == ["cart.shop"]


def test_what_a_dump_has_is_gone_when_a_list_is_empty(api: ApiServer, tmp_path: Path) -> None:
    api.delete("Pod", "shop/cart-1")
    api.held = {"Pod"}
    with watching(api, tmp_path, dump_of(tmp_path, pod("pay-1", "10.0.0.7", "cart"))) as live:
        wait_for(live, a10_96_0_1="cart.shop", a10_0_0_7="cart.shop")
        # No object comes, and still a table is made.
        api.release("Pod")
        wait_for(live, a10_96_0_1="cart.shop", a10_0_0_7=None)


def both(first: ApiServer, second: ApiServer, folder: Path) -> Path:
    """Write a configuration of two clusters, with a context each."""
    config = yaml.safe_load(first.kubeconfig(folder).read_text())
    (folder / "second").mkdir()
    other = yaml.safe_load(second.kubeconfig(folder / "second").read_text())
    config["clusters"].append({**other["clusters"][0], "name": "other"})
    config["contexts"].append({"name": "there", "context": {"cluster": "other", "user": "u"}})
    path = folder / "both"
    path.write_text(yaml.safe_dump(config))
    return path


def test_two_clusters_with_the_same_addresses(api: ApiServer, tmp_path: Path, plan: Plan) -> None:
    with ApiServer() as second:
        second.put(service("pay", "10.96.0.1", "pay"))
        config = both(api, second, tmp_path)
        contexts = ("eu=here", "us=there")
        options = engine_options(
            tmp_path, kubernetes=True, kubeconfig=config, kubernetes_contexts=contexts
        )
        with (
            Store(options.store_path, plan) as store,
            Naming(options, store, time.time()) as naming,
        ):
            ips = ["10.96.0.1", "10.96.0.1", "10.0.0.2", "10.0.0.2"]
            asked = pl.DataFrame({"ip": ips, "cluster": ["eu", "us"] * 2})
            asked = asked.with_columns(time_ns=pl.lit(time.time_ns()))

            def found() -> list[str | None]:
                return list(naming.entities.lookup(asked)["service"])

            wait_until(lambda: found() == ["cart.shop", "pay.shop", None, None])
            second.put(pod("pay-1", "10.0.0.2", "pay"))
            wait_until(lambda: found() == ["cart.shop", "pay.shop", None, "pay.shop"])


def test_two_clusters_without_a_name(api: ApiServer, tmp_path: Path) -> None:
    config = both(api, api, tmp_path)
    accesses = [ClusterAccess(config, context) for context in ("here", "there")]
    with pytest.raises(EntitiesError, match="two clusters that are watched have no name"):
        LiveEntities((), time.time(), accesses=accesses)


def test_without_a_configuration_it_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(EntitiesError, match="nothing: cannot be used"):
        LiveEntities((), time.time(), accesses=[ClusterAccess(tmp_path / "nothing")])


def test_a_context_that_is_not_there(api: ApiServer, tmp_path: Path) -> None:
    access = ClusterAccess(api.kubeconfig(tmp_path), "elsewhere")
    with pytest.raises(EntitiesError, match="elsewhere"):
        LiveEntities((), time.time(), accesses=[access])


FRAMEWALK = Path(sys.executable).with_name("framewalk")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FRAMEWALK, *arguments], capture_output=True, text=True, check=False)


def test_a_recording_is_a_source(api: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    with (
        EntitiesRecorder(file, 10**9) as recorder,
        ClusterWatch(ClusterAccess(api.kubeconfig(tmp_path), timing=QUICK), recorder.add) as watch,
    ):
        assert watch.wait_listed(DEADLINE_S)
        api.delete("Pod", "shop/cart-1")
        api.put(pod("cart-2", "10.0.0.2", "cart"))
        wait_until(lambda: recorder.events == 4)
    assert b"managedFields" not in file.read_bytes()
    entities = read_entities(file)
    times = [int((time.time() + later_s) * 1e9) for later_s in (-600, 60, 60)]
    asked = pl.DataFrame({"ip": ["10.0.0.1", "10.0.0.1", "10.0.0.2"], "time_ns": times})
    assert list(entities.lookup(asked)["service"]) == ["cart.shop", None, "cart.shop"]
    checked = run("entities", "check", file)
    assert checked.returncode == 0, checked.stderr
    assert "2 pods, 1 Services, 0 EndpointSlices, 0 nodes" in checked.stdout
    assert "1 are gone" in checked.stdout


def test_a_recording_is_bounded(api: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    with (
        EntitiesRecorder(file, 5_000) as recorder,
        ClusterWatch(ClusterAccess(api.kubeconfig(tmp_path), timing=QUICK), recorder.add) as watch,
    ):
        assert watch.wait_listed(DEADLINE_S)
        for number in range(200):
            api.put(pod("cart-1", f"10.0.1.{number}", "cart"))
        wait_until(lambda: recorder.events == 202)
    assert file.stat().st_size <= 6_000
    asked = pl.DataFrame({"ip": ["10.0.1.199"], "time_ns": [time.time_ns()]})
    assert list(read_entities(file).lookup(asked)["service"]) == ["cart.shop"]


def test_the_commands_with_a_cluster(api: ApiServer, tmp_path: Path) -> None:
    config = api.kubeconfig(tmp_path)
    checked = run("entities", "check", "--kubernetes", "--kubeconfig", config)
    assert checked.returncode == 0, checked.stderr
    assert "1 pods, 1 Services" in checked.stdout
    file = tmp_path / "recorded.json"
    recorded = run("entities", "record", file, "--kubeconfig", config, "--for", "2")
    assert recorded.returncode == 0, recorded.stderr
    assert file.exists()
