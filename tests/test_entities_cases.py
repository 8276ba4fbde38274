"""Faults that others reported of tools like this one, and what is right: names of real clusters.

`cases/` has what was sent and what `kubectl` printed; the variations are made here.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml

from framewalk.engine import CaptureReader, Entities, Plan, Store, read_entities, replay
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes import EntitiesFiles
from framewalk.engine.stages.decoding import decode
from framewalk.engine.stages.flattening import flatten
from framewalk.engine.stages.resolving import resolve
from framewalk.engine.stages.streams import Carried, follow_streams
from framewalk.server.engine.naming import NamesTold

CASES = Path(__file__).parent / "cases"
A_YEAR_S = 366 * 86_400
MIDNIGHT = "2026-01-01T00:"
MIDNIGHT_NS = 1_767_225_600 * 10**9
MINUTE_NS = 60 * 10**9
NS = 10**9

Item = dict[str, Any]


def relations(folder: Path, dumps: list[str], plan: Plan) -> list[tuple[str, str]]:
    entities = read_entities(*(folder / dump for dump in dumps))
    assert entities.warnings == ()
    with Store(":memory:", plan) as store:
        replay([folder / "case.capture.arrows"], entities, store, most_ahead_s=A_YEAR_S)
        query = "SELECT source_service, dest_service FROM service_relation_minute ORDER BY ALL"
        return store.query(query).fetchall()


@pytest.mark.parametrize(
    ("case", "dumps", "right"),
    [
        ("01-job-ip-older-pod", ["kubectl.yaml"], [("web.shop", "db.shop")]),
        ("02-ip-change-two-dumps", ["dump-0900.yaml", "dump-1000.yaml"], [("y.shop", "db.shop")]),
        ("02-ip-change-two-dumps", ["dump-1000.yaml", "dump-0900.yaml"], [("y.shop", "db.shop")]),
        ("02-ip-change-two-dumps", ["dump-1000.yaml"], [("y.shop", "db.shop")]),
        ("03-leading-zero-ip", ["kubectl.yaml"], [("a.d", "funny.d")]),
        (
            "04-servicelb-node-ip",
            ["kubectl.yaml"],
            [
                ("Unknown", "api.shop"),
                ("api.shop", "Unknown"),
                ("api.shop", "traefik.kube-system"),
            ],
        ),
        ("06-two-yaml-outputs", ["pods.yaml", "services.yaml"], [("a.d", "b.d")]),
        ("08-finished-at-epoch", ["kubectl.yaml"], [("batch.shop", "db.shop")]),
        ("18-support-bundle-folder", ["bundle"], [("a.d", "b.d")]),
        ("18-support-bundle-folder", ["bundle/pods", "bundle/services"], [("a.d", "b.d")]),
    ],
)
def test_case(case: str, dumps: list[str], right: list[tuple[str, str]], plan: Plan) -> None:
    assert relations(CASES / case, dumps, plan) == right


def test_two_outputs_without_a_line_between_them_are_refused() -> None:
    path = CASES / "06-two-yaml-outputs" / "kubectl.yaml"
    with pytest.raises(EntitiesError) as caught:
        read_entities(path)
    assert str(caught.value) == (
        f"{path}:7:1: the key apiVersion is given twice in one document; "
        "put a line of '---' between two outputs, or give each in a file of its own"
    )


# What is made here.


def pod(name: str, app: str = "", **more: Any) -> Item:  # noqa: ANN401 - fields of a Pod
    status = {"phase": "Running", **more.pop("status", {})}
    spec = {"nodeName": "n1", **more.pop("spec", {})}
    metadata = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "labels": {"app": app or name.rpartition("-")[0]},
        **more,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


def service(name: str, ip: str = "None", app: str = "", **more: Any) -> Item:  # noqa: ANN401
    status, metadata = more.pop("status", {}), more.pop("metadata", {})
    spec = {"clusterIP": ip, "selector": {"app": app or name}, **more}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": spec,
        "status": status,
    }


def node(name: str, *addresses: str, **spec: Any) -> Item:  # noqa: ANN401 - fields of a Node
    found = [{"type": "InternalIP", "address": address} for address in addresses]
    metadata, status = {"name": name}, {"addresses": found}
    return {"kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def endpoints(name: str, *addresses: str, port: int | None = None) -> Item:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-abc",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"port": port, "protocol": "TCP"}] if port else [],
    }


def read(folder: Path, *dumps: list[Item], **more: Any) -> Any:  # noqa: ANN401 - Entities
    paths = []
    for number, items in enumerate(dumps):
        path = folder / f"{number}.json"
        path.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}))
        paths.append(path)
    return read_entities(*paths, **more)


def who(entities: Any, ip: str, time_ns: int = 0, port: int = 0, **more: Any) -> Any:  # noqa: ANN401
    row = {"ip": [ip], "time_ns": [time_ns], "port": [port], **{k: [v] for k, v in more.items()}}
    (found,) = entities.lookup(pl.DataFrame(row)).rows(named=True)
    return found


def name(entities: Any, ip: str, time_ns: int = 0, port: int = 0, **more: Any) -> Any:  # noqa: ANN401
    found = who(entities, ip, time_ns, port, **more)
    return found["service"] or found["reason"]


def minute(number: float) -> int:
    return MIDNIGHT_NS + int(number * MINUTE_NS)


def at(clock: str) -> str:
    return f"{MIDNIGHT}{clock}Z"


IPS = pytest.mark.parametrize("ip", ["10.244.1.7", "fd00:10:244::7"])


def ran(start: str, end: str | None = None) -> Item:
    state = {"terminated": {"startedAt": at(start), "finishedAt": at(end)}} if end else None
    return {"name": "main", "state": state or {"running": {"startedAt": at(start)}}}


def network(clock: str) -> Item:
    when = {"status": "True", "lastTransitionTime": at(clock)}
    return {"type": "PodReadyToStartContainers", **when}


@IPS
@pytest.mark.parametrize("has_conditions", [True, False])
def test_a_job_gives_the_address_back(tmp_path: Path, ip: str, *, has_conditions: bool) -> None:
    web = pod(
        "web-0",
        creationTimestamp="2025-12-31T20:00:00Z",
        status={
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [network("04:00")] if has_conditions else [],
        },
    )
    jobs = [
        pod(
            f"{job}-1",
            creationTimestamp=at(f"{start}:30"),
            status={
                "phase": "Succeeded",
                "podIP": ip,
                "containerStatuses": [ran(f"{start}:32", f"{end}:10")],
            },
        )
        for job, start, end in (("one", "00", "01"), ("two", "02", "03"))
    ]
    services = [service(one, f"10.96.0.{n}") for n, one in enumerate(("web", "one", "two"), 1)]
    entities = read(tmp_path, [web, *jobs, *services])
    before = "not in what was read" if has_conditions else "web.shop"
    wanted = {0.3: before, 1: "one.shop", 1.5: before, 2.8: "two.shop", 3.5: before}
    wanted |= {4.1: "web.shop", 60: "web.shop"}
    found = {clock: name(entities, ip, minute(clock)) for clock in wanted}
    assert found == wanted


def test_what_was_seen_longer_ago_does_not_beat_what_was_seen_since(tmp_path: Path) -> None:
    def listed(version: int, one: str, other: str) -> list[Item]:
        return [
            pod("x-0", resourceVersion=str(version), status={"podIP": one}),
            pod("y-0", resourceVersion=str(version + 1), status={"podIP": other}),
            service("x"),
            service("y"),
        ]

    dumps = [listed(100, "10.0.0.1", "10.0.0.2"), listed(900, "10.0.0.9", "10.0.0.1")]
    for order in (dumps, dumps[::-1]):
        entities = read(tmp_path, *order)
        assert name(entities, "10.0.0.1") == "y.shop"
        assert name(entities, "10.0.0.9") == "x.shop"
        assert name(entities, "10.0.0.2") == "not in what was read"


def test_one_that_was_not_seen_since_gets_nothing_back(tmp_path: Path) -> None:
    web = pod("web-0", creationTimestamp=at("00:00"), resourceVersion="1")
    web["status"]["podIP"] = "10.0.0.1"
    job = pod("job-1", creationTimestamp=at("30:00"), resourceVersion="9")
    job["status"] = {
        "phase": "Succeeded",
        "podIP": "10.0.0.1",
        "containerStatuses": [ran("30:00", "40:00")],
    }
    services = [service("web"), service("job")]
    clocks = (10, 29, 35, 41)
    entities = read(tmp_path, [web, *services], [job, *services])
    found = [name(entities, "10.0.0.1", minute(clock)) for clock in clocks]
    assert found == ["web.shop", "web.shop", "job.shop", "not in what was read"]
    entities = read(tmp_path, [web, *services], [web, job, *services])
    found = [name(entities, "10.0.0.1", minute(clock)) for clock in clocks]
    assert found == ["web.shop", "web.shop", "job.shop", "web.shop"]


def test_one_that_was_seen_with_it_had_it_until_then(tmp_path: Path) -> None:
    beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": at("50:00")}
    nodes = [node("n1", "192.168.0.1"), node("n2", "192.168.0.2")]
    for one in nodes:
        one["status"]["conditions"] = [beat]
    older = pod("x-0", creationTimestamp=at("00:00"), resourceVersion="1")
    newer = pod("y-0", creationTimestamp=at("30:00"), resourceVersion="9")
    for one in (older, newer):
        one["status"]["podIP"] = "10.0.0.1"
    services = [service("x"), service("y")]
    entities = read(tmp_path, [older, *nodes, *services], [newer, *services])
    found = [name(entities, "10.0.0.1", minute(clock)) for clock in (1, 40, 49, 51)]
    assert found == ["x.shop", "x.shop", "x.shop", "y.shop"]


def test_an_address_changes_hands_when_its_next_owner_got_it(tmp_path: Path) -> None:
    def listed(version: int, app: str, got: str) -> list[Item]:
        conditions = [network(got)]
        status = {"podIP": "10.0.0.1", "conditions": conditions}
        created = at("00:00")
        one = pod(f"{app}-0", resourceVersion=str(version), creationTimestamp=created)
        return [{**one, "status": {"phase": "Running", **status}}, service("x"), service("y")]

    entities = read(tmp_path, listed(1, "x", "01:00"), listed(2, "y", "05:00"))
    found = [name(entities, "10.0.0.1", minute(clock)) for clock in (0.5, 1, 4.9, 5, 99)]
    assert found == ["not in what was read", "x.shop", "x.shop", "y.shop", "y.shop"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("10.96.000.002", "10.96.0.2"),
        ("10.96.0.2", "10.096.00.2"),
        ("10.96.0.2", "::ffff:10.96.0.2"),
        ("::ffff:a60:2", "10.96.0.2"),
        ("FD00:0:0::0002", "fd00::2"),
        ("fd00::2", "fd00:0:0:0:0:0:0:2"),
        ("fd00::2", "[fd00::2]"),
        ("fe80::2", "fe80::2%eth0"),
    ],
)
def test_an_address_is_one_however_it_is_spelt(tmp_path: Path, stored: str, sent: str) -> None:
    entities = read(tmp_path, [service("s", stored)])
    assert name(entities, sent) == "s.shop"


@pytest.mark.parametrize(
    ("finished", "ready", "deleted", "end"),
    [
        ("1970-01-01T00:00:00Z", at("30:00"), None, 30),
        ("0001-01-01T00:00:00Z", at("30:00"), at("40:00"), 30),
        ("2025-12-31T00:00:00Z", None, at("40:00"), 40),
        (None, at("30:00"), None, 30),
        ("nonsense", None, None, None),
        (at("20:00"), at("30:00"), None, 20),
    ],
)
@IPS
def test_an_end_that_cannot_be_is_none(  # noqa: PLR0913, PLR0917 - a case has so many parts
    tmp_path: Path, ip: str, finished: str, ready: str, deleted: str, end: int | None
) -> None:
    one = pod("batch-1", creationTimestamp=at("00:00"), deletionTimestamp=deleted)
    ended = {"terminated": {"startedAt": "1970-01-01T00:00:00Z", "finishedAt": finished}}
    one["status"] = {
        "phase": "Failed",
        "podIPs": [{"ip": ip}],
        "containerStatuses": [{"state": ended}],
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ready}],
    }
    entities = read(tmp_path, [one, service("batch")])
    assert name(entities, ip, minute(10)) == "batch.shop"
    assert name(entities, ip, minute((end or 99) - 0.1)) == "batch.shop"
    after = "not in what was read" if end else "batch.shop"
    assert name(entities, ip, minute(end or 99)) == after


# One pod, one name.


def test_the_shortest_name_then_the_first(tmp_path: Path) -> None:
    items = [
        *(service(one, f"10.96.0.{n}", "kv") for n, one in enumerate(("kv-headless", "zz", "kv"))),
        service("kv", "10.96.0.9", metadata={"namespace": "other"}),
        pod("kv-0", status={"podIP": "10.0.0.1"}),
        pod("kv-1", status={"podIP": "10.0.0.2"}),
    ]
    entities = read(tmp_path, items)
    assert who(entities, "10.0.0.1")["service"] == "kv.shop"
    found = [name(entities, f"10.96.0.{n}") for n in (0, 1, 2, 9)]
    assert found == ["kv.shop", "kv.shop", "kv.shop", "kv.other"]
    rows = entities.service_aliases.sort("alias").select("alias", "service", "namespace").rows()
    assert rows == [("kv-headless.shop", "kv.shop", "shop"), ("zz.shop", "kv.shop", "shop")]
    told = [str(one) for one in entities.told]
    assert told == [
        "a Service has the name of another: alias kv-headless.shop, service kv.shop",
        "a Service has the name of another: alias zz.shop, service kv.shop",
    ]


def test_a_service_of_pods_with_different_names_is_no_alias(tmp_path: Path) -> None:
    def labelled(name: str, *labels: str) -> Item:
        one = pod(name, status={"podIP": f"10.0.0.{name[-1]}"})
        one["metadata"]["labels"] = dict.fromkeys(labels, "1")
        return one

    def selecting(name: str, ip: str, label: str) -> Item:
        return service(name, ip, selector={label: "1"})

    items = [
        selecting("whole-system", "10.96.0.1", "all"),
        selecting("aa", "10.96.0.2", "a"),
        selecting("bb", "10.96.0.3", "b"),
        selecting("nobody", "10.96.0.4", "none"),
        labelled("p1", "all", "a"),
        labelled("p2", "all", "b"),
    ]
    entities = read(tmp_path, items)
    found = [name(entities, f"10.96.0.{n}") for n in (1, 2, 3, 4)]
    assert found == ["whole-system.shop", "aa.shop", "bb.shop", "nobody.shop"]
    assert entities.service_aliases.is_empty()
    entities = read(tmp_path, items[:-1])
    assert name(entities, "10.96.0.1") == "aa.shop"


def test_an_alias_is_one_as_of_the_time(tmp_path: Path) -> None:
    items = [
        service("kv-old", "10.96.0.1", "kv", metadata={"creationTimestamp": at("00:00")}),
        service("kv", "10.96.0.2", "kv", metadata={"creationTimestamp": at("30:00")}),
        pod("kv-0", status={"podIP": "10.0.0.1"}, creationTimestamp=at("10:00")),
    ]
    entities = read(tmp_path, items)
    for ip in ("10.96.0.1", "10.0.0.1"):
        assert name(entities, ip, minute(20)) == "kv-old.shop"
        assert name(entities, ip, minute(30)) == "kv.shop"
    (alias,) = entities.service_aliases.rows(named=True)
    assert (alias["from_ns"], alias["to_ns"]) == (minute(30), None)


def test_a_service_that_was_made_anew_names_its_pods_before(tmp_path: Path) -> None:
    items = [
        service("web", "10.96.0.1", metadata={"creationTimestamp": at("30:00")}),
        pod("web-0", status={"podIP": "10.0.0.1"}, creationTimestamp=at("00:00")),
    ]
    assert name(read(tmp_path, items), "10.0.0.1", minute(1)) == "web.shop"


# Addresses that need their port.

OUTSIDE = "outside the cluster"
NOT_DECLARED = "host network, port not declared"


def balanced(name: str, *ports: int, ip: str = "203.0.113.7", **more: Any) -> Item:  # noqa: ANN401
    status = {"loadBalancer": {"ingress": [{"ip": ip}, {"hostname": "lb.example"}]}}
    return service(name, ports=[{"port": port} for port in ports], status=status, **more)


@pytest.mark.parametrize("ip", ["203.0.113.7", "2001:db8::7"])
def test_services_that_share_an_address(tmp_path: Path, ip: str) -> None:
    items = [balanced("web", 80, 443, ip=ip), balanced("mail", 25, ip=ip)]
    items.append(service("files", externalIPs=[ip], ports=[{"port": 21}]))
    entities = read(tmp_path, items)
    found = [name(entities, ip, port=port) for port in (80, 443, 25, 21, 22, 0)]
    assert found == ["web.shop", "web.shop", "mail.shop", "files.shop", OUTSIDE, OUTSIDE]
    assert {name(entities, ip, port=port, is_called=False) for port in (80, 25, 21)} == {OUTSIDE}


def test_one_address_and_port_with_both_protocols(tmp_path: Path) -> None:
    dns = balanced("dns-udp", 53)
    dns["spec"]["ports"][0]["protocol"] = "UDP"
    for items in ([dns, balanced("dns-tcp", 53)], [balanced("dns-tcp", 53), dns]):
        assert name(read(tmp_path, items), "203.0.113.7", port=53) == "dns-tcp.shop"
    assert name(read(tmp_path, [dns]), "203.0.113.7", port=53) == "dns-udp.shop"


@pytest.mark.parametrize("ip", ["192.168.1.10", "fd00:1::10"])
def test_the_addresses_of_nodes(tmp_path: Path, ip: str) -> None:
    declared = {"containers": [{"ports": [{"containerPort": 9100}]}], "hostNetwork": True}
    mapped = {"containers": [{"ports": [{"containerPort": 80, "hostPort": 8081}]}]}
    items = [
        node("n1", ip),
        pod("exporter-1", spec=declared, status={"podIP": ip, "hostIP": ip}),
        pod("mapped-1", spec=mapped, status={"podIP": "10.0.0.5", "hostIP": ip}),
        service("exporter"),
        service("mapped"),
        service("entry", "10.96.0.9", ports=[{"port": 80, "nodePort": 30080}]),
        balanced("traefik", 80, ip=ip),
    ]
    entities = read(tmp_path, items)
    wanted = {9100: "exporter.shop", 8081: "mapped.shop", 80: "traefik.shop", 30080: "entry.shop"}
    wanted |= {10250: "node", 51234: "node", 0: "node"}
    assert {port: name(entities, ip, port=port) for port in wanted} == wanted
    assert {name(entities, ip, port=port, is_called=False) for port in wanted} == {"node"}
    assert who(entities, ip, port=9100)["instance"] == "exporter-1"
    assert who(entities, ip, port=30080)["instance"] is None
    # Older dumps have no nodes.
    entities = read(tmp_path, items[1:])
    assert {port: name(entities, ip, port=port) for port in wanted} == wanted


def test_a_pod_of_the_node_that_declares_nothing(tmp_path: Path) -> None:
    items = [pod("proxy-1", spec={"hostNetwork": True}, status={"podIP": "192.168.1.10"})]
    entities = read(tmp_path, [*items, service("proxy")])
    assert name(entities, "192.168.1.10", port=10256) == NOT_DECLARED
    assert name(entities, "192.168.1.10", port=40000, is_called=False) == "node"


@pytest.mark.parametrize("ip", ["198.51.100.5", "2001:db8::5"])
def test_what_is_outside_of_the_cluster(tmp_path: Path, ip: str) -> None:
    databases = [service("db", ports=[{"port": 5432}]), service("cache", ports=[{"port": 6379}])]
    for one in databases:
        del one["spec"]["selector"]
    items = [*databases, endpoints("db", ip, port=5432), endpoints("cache", ip, port=6379)]
    items.append(endpoints("unknown", ip, port=1))
    entities = read(tmp_path, items)
    found = [name(entities, ip, port=port) for port in (5432, 6379, 1, 0)]
    assert found == ["db.shop", "cache.shop", OUTSIDE, OUTSIDE]
    assert name(entities, ip, port=5432, is_called=False) == OUTSIDE
    entities = read(tmp_path, [databases[0], endpoints("db", ip)])
    assert name(entities, ip, port=7) == "db.shop"


def test_slices_of_services_with_a_selector_name_nobody(tmp_path: Path) -> None:
    items = [service("web"), endpoints("web", "10.0.0.1", port=80)]
    assert name(read(tmp_path, items), "10.0.0.1", port=80) == OUTSIDE


def test_why_an_address_has_no_name(tmp_path: Path) -> None:
    items = [
        node("n1", "192.168.1.10", podCIDR="10.7.1.0/24", podCIDRs=["10.7.1.0/24", "fd00:7::/64"]),
        pod("alone-1", status={"podIP": "10.0.0.1"}),
    ]
    entities = read(tmp_path, items)
    reasons = {
        "10.0.0.1": "pod without a Service",
        "10.0.0.2": "not in what was read",
        "10.7.1.9": "not in what was read",
        "fd00:7::9": "not in what was read",
        "192.168.1.10": "node",
        "192.168.1.11": OUTSIDE,
        "8.8.8.8": OUTSIDE,
        "2001:db8::1": OUTSIDE,
        "": OUTSIDE,
    }
    assert {ip: name(entities, ip) for ip in reasons} == reasons


# Several clusters.


def test_nodes_of_a_cluster_are_looked_up_there_only(tmp_path: Path) -> None:
    for cluster in ("eu", "us", "rest"):
        items = [
            service(f"{cluster}-web", "10.96.0.1"),
            service(cluster, f"10.96.1.{len(cluster)}"),
        ]
        (tmp_path / f"{cluster}.json").write_text(json.dumps({"kind": "List", "items": items}))
    named = [f"shop-{one}={tmp_path / one}.json" for one in ("eu", "us")]
    entities = read_entities(*named, tmp_path / "rest.json")
    assert entities.warnings == ()
    found = {
        cluster: name(entities, "10.96.0.1", cluster=cluster)
        for cluster in ("shop-eu", "shop-us", "", "elsewhere")
    }
    assert found == {
        "shop-eu": "eu-web.shop",
        "shop-us": "us-web.shop",
        "": "rest-web.shop",
        "elsewhere": "rest-web.shop",
    }
    assert name(entities, "10.96.1.4", cluster="shop-eu") == "not in what was read"


def test_an_address_in_the_dumps_of_two_clusters_is_told(tmp_path: Path) -> None:
    entities = read(tmp_path, [service("eu", "10.96.0.1")], [service("us", "10.96.0.1")])
    (warning,) = entities.warnings
    assert warning == (
        f"{tmp_path / '1.json'}: 10.96.0.1 is the Service shop/us here and shop/eu in "
        f"{tmp_path / '0.json'}, and no object is in both; if they are of two clusters, name "
        "those: --entities NAME=FILE"
    )


def test_two_dumps_of_one_cluster_are_not_two_clusters(tmp_path: Path) -> None:
    same = service("db", "10.96.0.9")
    first = [same, pod("x-0", status={"podIP": "10.0.0.1"})]
    second = [same, pod("y-0", status={"podIP": "10.0.0.1"})]
    assert read(tmp_path, first, second).warnings == ()


# Names for what has no Service.


@pytest.mark.parametrize(
    ("owner", "labels", "named"),
    [
        (("ReplicaSet", "cart-7d9f8b6c5d"), {"pod-template-hash": "7d9f8b6c5d"}, "cart"),
        (("ReplicaSet", "cart-7d9f8b6c5d"), {}, "cart"),
        (("ReplicaSet", "bare"), {}, "bare"),
        (("StatefulSet", "kv"), {}, "kv"),
        (("DaemonSet", "agent"), {}, "agent"),
        (("Job", "report-28000000"), {}, "report"),
        (("Job", "report"), {}, "report"),
        (("Job", "report"), {"app.kubernetes.io/name": "reports"}, "reports"),
        (("Node", "n1"), {}, None),
        (None, {}, None),
        (None, {"app": "plain"}, "plain"),
    ],
)
def test_pods_are_named_after_their_owner_if_that_is_wanted(
    tmp_path: Path, owner: tuple[str, str] | None, labels: dict[str, str], named: str | None
) -> None:
    one = pod("p-1", status={"podIP": "10.0.0.1"})
    one["metadata"]["labels"] = labels
    if owner is not None:
        reference = {"kind": owner[0], "name": owner[1], "controller": True}
        one["metadata"]["ownerReferences"] = [{"kind": "Other", "name": "o"}, reference]
    assert name(read(tmp_path, [one]), "10.0.0.1") == "pod without a Service"
    entities = read(tmp_path, [one], by_owner=True)
    found = who(entities, "10.0.0.1")
    assert (found["service"], found["is_by_owner"]) == (
        f"{named}.shop" if named else None,
        named is not None,
    )
    (described,) = entities.pods.rows(named=True)
    assert (described["service"], described["is_by_owner"]) == (
        found["service"],
        found["is_by_owner"],
    )


def test_pods_are_described(tmp_path: Path) -> None:
    one = pod(
        "cart-7d9f8b6c5d-x",
        creationTimestamp=at("00:00"),
        status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00:0::1"}]},
        labels={"app": "cart", "version": "v3"},
        ownerReferences=[{"kind": "ReplicaSet", "name": "cart-7d9f8b6c5d", "controller": True}],
    )
    (found,) = read(tmp_path, [one, service("cart")]).pods.rows(named=True)
    assert found == {
        "cluster": "",
        "service": "cart.shop",
        "instance": "cart-7d9f8b6c5d-x",
        "namespace": "shop",
        "node": "n1",
        "addresses": ["10.0.0.1", "fd00::1"],
        "owner_kind": "Deployment",
        "owner_name": "cart",
        "version": "v3",
        "labels": [{"key": "app", "value": "cart"}, {"key": "version", "value": "v3"}],
        "is_by_owner": False,
        "from_ns": MIDNIGHT_NS,
        "to_ns": None,
    }


# Dumps as people have them.

A, B = pod("a-1", status={"podIP": "10.0.0.1"}), service("a", "10.96.0.1")
LIST = {"kind": "List", "items": [A, B]}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("stream.json", json.dumps(A, indent=2) + json.dumps(B, indent=2)),
        ("lines.json", f"{json.dumps(A)}\n{json.dumps(B)}\n"),
        ("array.json", json.dumps([A, B])),
        ("lists.json", json.dumps([{"kind": "PodList", "items": [A]}, LIST])),
        ("documents.yaml", f"{yaml.safe_dump(A)}---\n{yaml.safe_dump(B)}"),
        ("sequence.yaml", yaml.safe_dump([A, B])),
        (
            "events.json",
            "\n".join(json.dumps({"type": "ADDED", "object": one}) for one in (A, B)),
        ),
        ("odd.json", json.dumps({"kind": "List", "items": [A, B, 7, "x", {"kind": "Pod"}]})),
    ],
)
def test_dumps_as_people_have_them(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.write_text(text)
    entities = read_entities(path)
    assert name(entities, "10.0.0.1") == name(entities, "10.96.0.1") == "a.shop"
    assert len(entities.warnings) == (3 if file == "odd.json" else 0)


def test_folders_of_folders_with_other_things(tmp_path: Path) -> None:
    for place, text in {
        "bundle/pods/shop.json": json.dumps({"kind": "PodList", "items": [A]}),
        "bundle/services/shop.yaml": yaml.safe_dump(B),
        "bundle/version.json": '{"major": "1"}',
        "bundle/groups.json": '[{"name": "apps"}, 1]',
        "bundle/logs/broken.json": "{ not a thing",
        "bundle/.hidden/pods.json": json.dumps({**A, "status": {"podIP": "10.0.0.66"}}),
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    entities = read_entities(tmp_path / "bundle")
    assert name(entities, "10.0.0.1") == name(entities, "10.96.0.1") == "a.shop"
    assert name(entities, "10.0.0.66") == "not in what was read"
    (warning,) = entities.warnings
    assert "broken.json" in warning


def test_a_deletion_that_was_watched(tmp_path: Path) -> None:
    first = pod("a-1", creationTimestamp=at("00:00"), resourceVersion="5")
    first["status"] |= {"podIP": "10.0.0.1", "conditions": [network("01:00")]}
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": at("07:00")}
    last = {**first, "metadata": {**first["metadata"], "resourceVersion": "9"}}
    last["metadata"] |= {"deletionTimestamp": at("07:20"), "deletionGracePeriodSeconds": 30}
    last["status"] = {**first["status"], "conditions": [network("01:00"), ready]}
    events = [("ADDED", first), ("ADDED", B), ("DELETED", last)]
    path = tmp_path / "watched.json"
    path.write_text("".join(json.dumps({"type": kind, "object": one}) for kind, one in events))
    entities = read_entities(path)
    found = [name(entities, "10.0.0.1", minute(clock)) for clock in (0.5, 1, 6.9, 7)]
    assert found == ["not in what was read", "a.shop", "a.shop", "not in what was read"]


# Files that change under a running engine.


def refreshed(files: EntitiesFiles, now_s: float) -> Entities:
    """Have changed files read, and wait for it."""
    files.forget_stamps()
    before = files.entities
    for _ in range(60_000):
        assert files.refresh(now_s) is None
        if files.entities is not before:
            return files.entities
        threading.Event().wait(0.001)
    pytest.fail("the files are not read")


def test_what_is_missed_in_a_new_dump_was_there_until_then(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"

    def write(*items: Item) -> None:
        path.write_text(json.dumps({"kind": "List", "items": items}))

    one = pod("a-1", creationTimestamp=at("00:00"), status={"podIP": "10.0.0.1"})
    other = pod("a-2", creationTimestamp=at("00:00"), status={"podIP": "10.0.0.2"})
    write(one, other, B)
    with EntitiesFiles([path], MIDNIGHT_NS / NS) as files:
        write(other, B)
        entities = refreshed(files, MIDNIGHT_NS / NS + 600)
        found = [name(entities, "10.0.0.1", minute(clock)) for clock in (1, 9.9, 10, 99)]
        assert found == ["a.shop", "a.shop", "not in what was read", "not in what was read"]
        assert name(entities, "10.0.0.2", minute(99)) == "a.shop"
        # It is back: a dump may have been cut.
        write(one, other, B)
        entities = refreshed(files, MIDNIGHT_NS / NS + 660)
        assert name(entities, "10.0.0.1", minute(99)) == "a.shop"
        write(other, B)
        refreshed(files, MIDNIGHT_NS / NS + 720)
        # Two hours later nobody asks any more.
        write(other, B)
        entities = refreshed(files, MIDNIGHT_NS / NS + 720 + 7_201)
        assert name(entities, "10.0.0.1", minute(1)) == "not in what was read"


def test_a_running_engine_reads_the_dumps_of_named_clusters(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"kind": "List", "items": [pod("alone-1"), B]}))
    with EntitiesFiles([Path(f"shop-eu={path}")], 0, by_owner=True) as files:
        assert name(files.entities, "10.96.0.1", cluster="shop-eu") == "a.shop"
        assert name(files.entities, "10.96.0.1", cluster="other") == OUTSIDE
        assert files.entities.pods["service"].to_list() == ["alone.shop"]


def test_names_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [
        service("kv", app="kv"),
        service("kv-headless", app="kv"),
        pod("kv-0", status={"podIP": "10.0.0.1"}),
    ]
    entities = read(tmp_path, items)
    names = NamesTold()
    with caplog.at_level("INFO", "framewalk.told"):
        names.tell(entities)
        names.tell(entities)
    assert [record.message for record in caplog.records] == [
        "a Service has the name of another",
    ]


def test_sides_without_a_name_have_a_reason() -> None:
    folder = CASES / "04-servicelb-node-ip"
    entities = read_entities(folder / "kubectl.yaml")
    with CaptureReader(folder / "case.capture.arrows") as reader:
        messages = pa.Table.from_batches([batch.messages for batch in reader])
    resolved = [
        resolve(flatten(context), entities)
        for decoded in decode(messages)
        for context in follow_streams(decoded.captured, decoded.nested, Carried())
    ]
    rows = pl.concat([one.unknown for one in resolved])
    found = rows.select("address", "port", "side", "reason").unique()
    assert sorted(found.rows()) == [
        ("192.168.1.10", 0, "client", "node"),
        ("192.168.1.10", 9100, "server", NOT_DECLARED),
    ]
