"""What an unchanged Rover sent, replayed: README.md says what it is and what was done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison import Values, differences, read_views
from raw_sums import (
    Log,
    Sums,
    count,
    counted,
    endpoint,
    endpoint_sums,
    read_logs,
    relation_sums,
    service_sums,
)
from reference import analyse, load_dump, read_capture_rows, read_definitions

from framewalk.engine import Plan, ReplaySummary, Store, read_entities, replay

HERE = Path(__file__).parent
CAPTURES, CLUSTER, LEDGER = HERE / "part1", HERE / "cluster.json", HERE / "ledger"
LOADGEN, FRONTEND, BACKEND = "loadgen.shop", "frontend.shop", "backend.shop"

# README.md: (local, remote, role, whether the local side is an IP address) -> what was asked.
TABLE = {
    (LOADGEN, FRONTEND, "client", False): {
        "GET:/api/items 200": 240,
        "POST:/orders 201": 120,
        "GET:/missing 404": 60,
        "GET:/boom 500": 60,
        "DELETE:/orders/N 204": 60,
        "HEAD:/api/ping 200": 48,
        "GET:/slow 200": 12,
    },
    (FRONTEND, LOADGEN, "server", False): {
        "GET:/api/items 200": 240,
        "POST:/orders 201": 113,
        "GET:/missing 404": 60,
        "GET:/boom 500": 60,
        "DELETE:/orders/N 204": 60,
        "HEAD:/api/ping 200": 48,
        "GET:/slow 200": 12,
    },
    (FRONTEND, BACKEND, "client", False): {"GET:/items.json 200": 240},
    (LOADGEN, BACKEND, "client", False): {
        "GET:/items.json 200": 39,
        "GET:/status/404 404": 32,
        "GET:/status/500 500": 30,
        "GET:/redirect 302": 30,
        "GET:/big 200": 8,
    },
    (BACKEND, LOADGEN, "server", False): {
        "GET:/status/404 404": 30,
        "GET:/status/500 500": 30,
        "GET:/redirect 302": 30,
    },
    (LOADGEN, BACKEND, "client", True): {"GET:/items.json 200": 1},
}
KERNEL_LOGS = {
    ("client", "connect"): 260,
    ("client", "close"): 263,
    ("client", "read"): 1_594,
    ("client", "write"): 1_102,
    ("server", "accept"): 280,
    ("server", "close"): 280,
    ("server", "read"): 837,
    ("server", "write"): 1_167,
}
# Between processes of one pod: Rover gave the far side the near one's address.
SAME_SERVICE = {("server", "accept"): 1, ("server", "close"): 1}


@pytest.fixture(scope="module")
def logs() -> list[Log]:
    return read_logs(CAPTURES, CLUSTER)


@pytest.fixture(scope="module")
def replayed(plan: Plan) -> Iterator[tuple[Store, ReplaySummary]]:
    with Store(":memory:", plan) as store:
        yield store, replay([CAPTURES], read_entities(CLUSTER), store)


@pytest.fixture(scope="module")
def views(replayed: tuple[Store, ReplaySummary]) -> Values:
    return read_views(replayed[0])


def without_number(name: str) -> str:
    return "DELETE:/orders/N" if name.startswith("DELETE:/orders/") else name


def asked(logs: list[Log]) -> dict[tuple[str, str, str, bool], Counter[str]]:
    found: dict[tuple[str, str, str, bool], Counter[str]] = {}
    for log in logs:
        if log.kind == "http":
            key = log.local, log.remote, log.role, log.local_is_ip
            name = without_number(endpoint(log.operation))
            status = log.operation.response.statusCode
            found.setdefault(key, Counter())[f"{name} {status}"] += 1
    return found


def totals(values: dict[Any, dict[str, Any]], metric: str) -> dict[tuple[str, ...], int]:
    """Return a sum over all minutes for each entity that has it."""
    found: Counter[tuple[str, ...]] = Counter()
    for (names, _), metrics in values.items():
        found[names] += metrics.get(metric, 0)
    return dict(+found)


def test_the_raw_messages_are_what_the_readme_counts(logs: list[Log]) -> None:
    assert count(CAPTURES) == (113, 2_363, 913, 7_446)
    assert asked(logs) == TABLE
    kernel = Counter((log.role, log.kind) for log in logs if log.kind != "http")
    assert kernel == KERNEL_LOGS
    dropped = Counter((log.role, log.kind) for log in logs if log.local == log.remote)
    assert dropped == SAME_SERVICE


def test_every_message_and_log_is_counted(replayed: tuple[Store, ReplaySummary]) -> None:
    counters = replayed[1].counters
    assert (counters.messages, counters.logs) == (2_363, 7_446)
    assert counters.dropped == {"same_service": 2}
    assert not counters.quality


def test_relations_have_the_requests_of_the_readme(views: Values) -> None:
    called: dict[str, Counter[tuple[str, ...]]] = {"client": Counter(), "server": Counter()}
    for (local, remote, role, _), names in TABLE.items():
        ends = (local, remote) if role == "client" else (remote, local)
        called[role][ends] += sum(names.values())
    for role, wanted in called.items():
        metric = f"kubernetes_service_relation_{role}_http_call_cpm"
        assert totals(views["service_relation"], metric) == wanted


def test_relations_have_the_status_classes_of_the_readme(views: Values) -> None:
    wanted: dict[tuple[str, str], Counter[tuple[str, ...]]] = {}
    for (local, remote, role, _), names in TABLE.items():
        ends = (local, remote) if role == "client" else (remote, local)
        for name, times in names.items():
            wanted.setdefault((role, name.split()[1][0]), Counter())[ends] += times
    assert {status for _, status in wanted} == {"2", "3", "4", "5"}
    for (role, status), counts in wanted.items():
        metric = f"kubernetes_service_relation_{role}_http_status_{status}xx_cpm"
        assert totals(views["service_relation"], metric) == counts


def test_endpoints_have_the_requests_that_servers_saw(views: Values) -> None:
    wanted: Counter[tuple[str, str]] = Counter()
    for (local, _, role, _), names in TABLE.items():
        if role == "server":
            for name, times in names.items():
                wanted[local, name.split()[0]] += times
    got: Counter[tuple[str, str]] = Counter()
    metric = "kubernetes_service_endpoint_http_call_cpm"
    for names, times in totals(views["endpoint"], metric).items():
        service, name = names
        got[service, without_number(name)] += times
    assert got == wanted


def test_kernel_logs_count_by_role(views: Values) -> None:
    got = {}
    for role, kind in KERNEL_LOGS:
        if kind in {"read", "write"}:
            metric = f"kubernetes_service_relation_{role}_{kind}_cpm"
            got[role, kind] = sum(totals(views["service_relation"], metric).values())
    assert got == {key: KERNEL_LOGS[key] for key in got}
    wanted = Counter(KERNEL_LOGS) - Counter(SAME_SERVICE)
    for kind in ("connect", "accept", "close"):
        metric = f"kubernetes_service_relation_{kind}_cpm"
        both = wanted["client", kind] + wanted["server", kind]
        assert sum(totals(views["service_relation"], metric).values()) == both


@pytest.mark.parametrize(
    ("view", "add_up"),
    [
        ("service", service_sums),
        ("service_relation", relation_sums),
        ("endpoint", endpoint_sums),
    ],
)
def test_sums_are_those_of_the_raw_messages(
    views: Values, logs: list[Log], view: str, add_up: Callable[[Iterable[Log]], Sums]
) -> None:
    """Bytes, packages, durations and counts, to the unit, for each entity and minute."""
    wanted = add_up(counted(logs))
    metrics = {metric for sums in wanted.values() for metric in sums}
    known = {metric for values in views[view].values() for metric in values}
    assert sorted(metrics - known) == [], "the reader names metrics that are there"
    got = {
        key: {metric: value for metric, value in values.items() if metric in metrics}
        for key, values in views[view].items()
    }
    assert got.keys() == wanted.keys()
    different = {key: (got[key], dict(wanted[key])) for key in got if got[key] != wanted[key]}
    assert different == {}


def test_all_values_are_those_of_the_reference(views: Values) -> None:
    """All 426 metrics: percentiles, averages, rates and pods too."""
    rows = [
        row._replace(stream=number * 10_000 + row.stream)
        for number, path in enumerate(sorted(CAPTURES.glob("*.arrows")))
        for row in read_capture_rows(path)
    ]
    wanted = analyse(rows, load_dump(CLUSTER), read_definitions())
    assert differences(views, wanted.values) == []


def test_clients_that_were_seen_whole_agree_with_their_own_ledger(
    views: Values, logs: list[Log]
) -> None:
    """The 600 requests over keep-alive connections, and the calls made while serving them."""
    ledger = json.loads((LEDGER / "loadgen-keepalive.json").read_text(encoding="utf-8"))
    requests = {name: times for name, times in ledger["requests"].items() if name != "closed"}
    seen: Counter[str] = Counter()
    for log in logs:
        if log.kind == "http" and (log.local, log.remote) == (LOADGEN, FRONTEND):
            status = log.operation.response.statusCode
            seen[f"{endpoint(log.operation).replace(':', ' ', 1)} {status}"] += 1
    assert seen == requests

    def client(metric: str) -> dict[tuple[str, ...], int]:
        name = f"kubernetes_service_relation_client_http_{metric}"
        return totals(views["service_relation"], name)

    assert client("call_cpm")[LOADGEN, FRONTEND] == sum(requests.values())
    sent_back = sum(ledger["response_bytes"].values())
    assert client("resp_body_size")[LOADGEN, FRONTEND] == sent_back
    assert client("call_cpm")[FRONTEND, BACKEND] == requests["GET /api/items 200"]
    items = ledger["response_bytes"]["GET /api/items"]
    assert client("resp_body_size")[FRONTEND, BACKEND] == items


def test_requests_that_rover_misses_are_missed_and_not_made_up(views: Values) -> None:
    """Bodies of 300 kB are followed for 8 of 30 calls, and what nginx sends from files never."""
    ledger = json.loads((LEDGER / "loadgen-short.json").read_text(encoding="utf-8"))
    done = sum(ledger["requests"].values())
    called = totals(views["service_relation"], "kubernetes_service_relation_client_http_call_cpm")
    served = totals(views["service_relation"], "kubernetes_service_relation_server_http_call_cpm")
    assert (done, served[LOADGEN, BACKEND]) == (150, 90)
    assert (FRONTEND, BACKEND) not in served
    assert called[LOADGEN, BACKEND] < done


def test_refused_connects_are_the_only_failed_ones(views: Values, logs: list[Log]) -> None:
    """Rover sees 19 of the 20; those that time out count as successful."""
    failed = [log for log in logs if log.kind == "connect" and not log.operation.success]
    assert len(failed) == 19
    assert {(log.local, log.remote) for log in failed} == {(LOADGEN, BACKEND)}
    ledger = json.loads((LEDGER / "loadgen-refused.json").read_text(encoding="utf-8"))
    assert ledger["10.244.0.10 ConnectionRefusedError"] == 20
    timed_out = sum(times for name, times in ledger.items() if name.startswith("10.244.0.99 "))
    succeeded = totals(views["service_relation"], "kubernetes_service_relation_connect_success_cpm")
    assert succeeded[LOADGEN, "Unknown"] == timed_out == 20
    tried = totals(views["service_relation"], "kubernetes_service_relation_connect_cpm")
    assert tried[LOADGEN, BACKEND] - succeeded[LOADGEN, BACKEND] == 19
