"""The reference itself, against examples worked out by hand."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from reference import (
    Definition,
    Directory,
    Result,
    analyse,
    drop_counts,
    load_dump,
    parse_condition,
    read_capture_rows,
    read_definitions,
)
from strategies import HOSTILE_DUMP, UNDECODABLE, HostileCapture, hostile_captures

from framewalk.engine.wire import access_log_pb2 as pb

Anything = Any
NS = 10**9
MS = 10**6
NOON = 1_714_564_800
HOUR = NOON
DAY = NOON - 43_200
MAX = 2**63 - 1
CLIENT, SERVER, PROXY = 0, 1, 2

DEFINITIONS = read_definitions()
DUMP = load_dump(HOSTILE_DUMP)
EMPTY = load_dump("")

LATE_NS = 2**63 - 1
"""A message that came after everything: nothing in it is ahead."""

SHOP_READ = "kubernetes_service_read_"


def node(seconds: int = NOON, nanos: int = 0, **more: Anything) -> pb.EBPFAccessLogNodeInfo:
    made = pb.EBPFAccessLogNodeInfo(name="n", **more)
    made.bootTime.seconds, made.bootTime.nanos = seconds, nanos
    return made


def pod(service: str, name: str = "") -> pb.ConnectionAddress:
    return pb.ConnectionAddress(
        kubernetes=pb.KubernetesProcessAddress(serviceName=service, podName=name)
    )


def ip(host: str) -> pb.ConnectionAddress:
    return pb.ConnectionAddress(ip=pb.IPAddress(host=host))


def link(
    local: pb.ConnectionAddress | None = None,
    remote: pb.ConnectionAddress | None = None,
    role: int = CLIENT,
    **more: Anything,
) -> pb.AccessLogConnection:
    return pb.AccessLogConnection(
        local=local or pod("a", "a-1"), remote=remote or pod("b", "b-1"), role=role, **more
    )


def timed(operation: Anything, start: int, passed: int) -> Anything:
    operation.startTime.offset.offset = start
    operation.endTime.offset.offset = start + passed
    return operation


def read(start: int = 0, passed: int = 0, **more: Anything) -> pb.AccessLogKernelLog:
    operation = timed(pb.AccessLogKernelReadOperation(**more), start, passed)
    return pb.AccessLogKernelLog(read=operation)


def write(start: int = 0, passed: int = 0, **more: Anything) -> pb.AccessLogKernelLog:
    operation = timed(pb.AccessLogKernelWriteOperation(**more), start, passed)
    return pb.AccessLogKernelLog(write=operation)


def http(
    latency_ms: int = 0, status: int = 200, path: str = "/x", method: int = 0, start: int = 0
) -> pb.AccessLogProtocolLogs:
    made = pb.AccessLogHTTPProtocol(
        request=pb.AccessLogHTTPProtocolRequest(method=method, path=path),
        response=pb.AccessLogHTTPProtocolResponse(statusCode=status),
    )
    return pb.AccessLogProtocolLogs(http=timed(made, start, latency_ms * MS))


def message(
    *logs: pb.AccessLogKernelLog, protocol: pb.AccessLogProtocolLogs | None = None, **more: Anything
) -> bytes:
    return pb.EBPFAccessLogMessage(
        kernelLogs=logs, protocolLog=protocol, **more
    ).SerializeToString()


def first(*logs: pb.AccessLogKernelLog, **more: Anything) -> bytes:
    return message(*logs, **{"node": node(), "connection": link(), **more})


def run(
    *messages: bytes,
    dump: Directory = EMPTY,
    definitions: Sequence[Definition] = DEFINITIONS,
    **more: Anything,
) -> Result:
    rows = [(1, seq, LATE_NS, one) for seq, one in enumerate(messages)]
    return analyse(rows, dump, definitions, **more)


def calls(*latencies_and_statuses: tuple[int, int]) -> list[bytes]:
    served = [message(protocol=http(*one)) for one in latencies_and_statuses]
    return [first(connection=link(role=SERVER)), *served]


def values_of(function: str, attribute: str, *arguments: int | str, **more: Anything) -> Definition:
    return Definition("m", "K8SService", attribute, function, more.get("filters", ()), arguments)


def names(result: Result, view: str) -> set[tuple[str, ...]]:
    return {key for key, _ in result.values[view]}


def test_the_tables_hold_447_definitions() -> None:
    assert len(DEFINITIONS) == len({d.name for d in DEFINITIONS}) == 447


def test_definition_of_a_row() -> None:
    found = {d.name: d for d in DEFINITIONS}
    assert found["kubernetes_service_apdex"].arguments == ("name", "protocol.success")
    assert found["kubernetes_service_percentile"].arguments == (10,)
    assert found["kubernetes_service_http_call_successful_rate"].arguments == (
        parse_condition("protocol.success == true"),
    )
    assert found["kubernetes_service_connect_success_cpm"].filters == (
        parse_condition('type == "connect"'),
        parse_condition("connect.success == true"),
    )


@pytest.mark.parametrize(
    ("text", "operator", "literal"),
    [
        ('a.b like "%x%"', "like", "%x%"),
        ("a.b in [1, 2_000L]", "in", (1, 2000)),
        ("a.b not  contain 49", "not contain", 49),
        ("a.b != null", "!=", None),
        ("a.b == DetectPoint.SERVER", "==", "SERVER"),
        ("a.b>=-5", ">=", -5),
    ],
)
def test_conditions(text: str, operator: str, literal: object) -> None:
    found = parse_condition(text)
    assert (found.attribute, found.operator, found.literal) == ("a.b", operator, literal)


def test_one_read_log() -> None:
    log = read(
        5 * NS,
        700,
        l2Metrics=pb.AccessLogKernelReadL2Metrics(
            ifindex=2,
            totalPackageCount=3,
            totalPackageSize=4_000,
            totalPackageToQueueDuration=11,
            totalRcvPackageFromQueueDuration=12,
        ),
        l3Metrics=pb.AccessLogKernelReadL3Metrics(
            totalDuration=21,
            totalRecvDuration=22,
            totalLocalDuration=23,
            totalNetFilterCount=24,
            totalNetFilterDuration=25,
        ),
        l4Metrics=pb.AccessLogKernelReadL4Metrics(totalDuration=31),
    )
    result = run(first(log))
    expected = {
        "cpm": 1,
        "time": 700,
        "duration": 700,
        "package_cpm": 3,
        "package_size": 4_000,
        "package_to_queue_time": 11,
        "rcv_package_from_queue_time": 12,
        "l3_time": 21,
        "l3_rcv_time": 22,
        "l3_local_time": 23,
        "netfilter_cpm": 24,
        "netfilter_duration": 25,
        "l4_time": 31,
    }
    for view, key in (("service", ("a",)), ("service_instance", ("a", "a-1"))):
        found = result.values[view][key, NOON]
        prefix = f"kubernetes_{view}_read_"
        assert {name: found[prefix + name] for name in expected} == expected
        assert all(name.startswith(prefix) for name in found)
    assert names(result, "service_relation") == {("a", "b")}
    assert names(result, "service_instance_relation") == {("a", "a-1", "b", "b-1")}
    assert result.values["endpoint"] == result.values["endpoint_relation"] == {}
    assert (result.messages, result.logs, result.dropped, result.quality) == (1, 1, {}, {})


def test_one_call_seen_at_both_ends() -> None:
    caller = [first(protocol=http(12, 200, "/details/0", 1))]
    callee = link(pod("b", "b-1"), pod("a", "a-1"), SERVER)
    called = [first(protocol=http(10, 200, "/details/0", 1), connection=callee)]
    result = analyse(
        [(1, 0, LATE_NS, caller[0]), (2, 0, LATE_NS, called[0])],
        EMPTY,
        DEFINITIONS,
    )
    found = result.values["service_relation"][("a", "b"), NOON]
    assert found["kubernetes_service_relation_client_http_call_cpm"] == 1
    assert found["kubernetes_service_relation_server_http_call_cpm"] == 1
    assert found["kubernetes_service_relation_client_http_call_time"] == 12
    assert found["kubernetes_service_relation_server_http_call_time"] == 10
    assert names(result, "service") == {("b",)}  # the metrics of a service count what it served
    endpoint = result.values["endpoint"][("b", "POST:/details/0"), NOON]
    assert endpoint["kubernetes_service_endpoint_call_cpm"] == 1
    assert endpoint["kubernetes_service_endpoint_call_time"] == 10
    assert endpoint["kubernetes_service_endpoint_call_successful_rate"] == 10_000
    edge = ("a", "Unknown", "b", "POST:/details/0", "unknown")
    (values,) = result.values["endpoint_relation"].values()
    latencies_ns = values.pop("kubernetes_service_endpoint_relation_http_latency_ns_percentile")
    assert all(9_900_000 <= one <= 10_100_000 for one in latencies_ns.values())
    assert result.values["endpoint_relation"] == {
        (edge, NOON): {
            "kubernetes_service_endpoint_relation_http_call_cpm": 1,
            "kubernetes_service_endpoint_relation_http_call_duration": 10,
            "kubernetes_service_endpoint_relation_http_success_cpm": 1,
            "kubernetes_service_endpoint_relation_http_req_header_size": 0,
            "kubernetes_service_endpoint_relation_http_req_body_size": 0,
            "kubernetes_service_endpoint_relation_http_resp_header_size": 0,
            "kubernetes_service_endpoint_relation_http_resp_body_size": 0,
        }
    }


def test_percentiles_of_known_ranks() -> None:
    # Buckets 1..10 of 10 ms: ranks round(5), round(7.5), round(9), round(9.5), round(9.9).
    found = run(*calls(*((10 * n + 3, 200) for n in range(1, 11)))).values["service"][("a",), NOON]
    assert found["kubernetes_service_percentile"] == {
        "p50": 50,
        "p75": 80,
        "p90": 90,
        "p95": 100,
        "p99": 100,
    }


def test_percentile_of_three() -> None:
    # Ranks 1.5 -> 2, 2.25 -> 2, 2.7 -> 3, 2.85 -> 3, 2.97 -> 3.
    found = run(*calls((9, 200), (15, 200), (1_000, 200))).values["service"][("a",), NOON]
    percentiles = found["kubernetes_service_percentile"]
    assert list(percentiles.values()) == [10, 10, 1_000, 1_000, 1_000]


def test_apdex() -> None:
    # 500 satisfied, 501 and 2000 tolerated, 2001 and the failed one neither: (1 + 2/2) / 5.
    served = calls((500, 200), (501, 200), (2_000, 499), (2_001, 200), (1, 500))
    found = run(*served).values["service"][("a",), NOON]
    assert found["kubernetes_service_apdex"] == 4_000
    strict = run(*served, thresholds={"a": 400}).values["service"][("a",), NOON]
    assert strict["kubernetes_service_apdex"] == 2_000  # 500 and 501 tolerated, of 5


def test_percent_truncates() -> None:
    found = run(*calls((1, 200), (1, 499), (1, 500))).values["service"][("a",), NOON]
    assert found["kubernetes_service_http_call_successful_rate"] == 6_666


def test_status_classes() -> None:
    statuses = (99, 100, 199, 200, 299, 300, 400, 500, 599, 600)
    found = run(*calls(*((1, s) for s in statuses))).values["service"][("a",), NOON]
    counts = [found[f"kubernetes_service_http_status_{n}xx_cpm"] for n in range(1, 6)]
    assert counts == [2, 2, 1, 1, 2]


def test_long_average_truncates() -> None:
    found = run(first(read(0, 1), read(0, 1), read(0, 3))).values["service"][("a",), NOON]
    assert found[SHOP_READ + "time"] == 1


def test_long_average_truncates_toward_zero() -> None:
    average = values_of("longAvg", "protocol.http.statusCode")
    served = calls((1, -1), (1, -2))
    assert run(*served, definitions=[average]).values["service"][("a",), NOON] == {"m": -1}


def test_latency_is_truncated_to_milliseconds() -> None:
    late = http(0)
    late.http.endTime.offset.offset = 2 * MS - 1
    found = run(first(protocol=late, connection=link(role=SERVER)))
    assert (
        found.values["endpoint"][("a", "GET:/x"), NOON]["kubernetes_service_endpoint_call_time"]
        == 1
    )


def test_minutes_begin_at_boot_seconds_and_nanos() -> None:
    boot = node(NOON - 1, 999_999_999)
    result = run(first(read(0), read(1), read(60 * NS), read(60 * NS + 1), node=boot))
    assert {bucket: found[SHOP_READ + "cpm"] for (_, bucket), found in _of(result).items()} == {
        NOON - 60: 1,
        NOON: 2,
        NOON + 60: 1,
    }


def _of(result: Result, view: str = "service") -> dict[Any, dict[str, Any]]:
    return result.values[view]


def test_negative_duration_counts_as_zero() -> None:
    backwards = read(10)
    backwards.read.endTime.offset.offset = 9
    result = run(first(backwards, read(10, 7)))
    assert result.quality == {"negative_duration": 1}
    assert _of(result)[("a",), NOON][SHOP_READ + "duration"] == 7
    assert _of(result)[("a",), NOON][SHOP_READ + "cpm"] == 2


def test_values_out_of_range_count_as_zero() -> None:
    layer = pb.AccessLogKernelWriteL4Metrics(
        totalDuration=2**63, totalTransmitPackageCount=-1, totalPackageSize=MAX
    )
    log = write(0, 2**63, l4Metrics=layer)
    result = run(first(log))
    found = _of(result)[("a",), NOON]
    assert result.quality == {"value_out_of_range": 3}
    assert found["kubernetes_service_write_l4_time"] == 0
    assert found["kubernetes_service_write_package_cpm"] == 0
    assert found["kubernetes_service_write_package_size"] == MAX
    assert found["kubernetes_service_write_time"] == 0


def test_bad_input_counts_in_dropped_logs_too() -> None:
    assert run(message(read(0, 2**63))).quality == {"value_out_of_range": 1}


def test_sums_stay_at_the_top() -> None:
    big = read(l4Metrics=pb.AccessLogKernelReadL4Metrics(totalDuration=MAX))
    found = _of(run(first(big, big, big)))[("a",), NOON]
    assert found[SHOP_READ + "l4_time"] == MAX // 3


def test_durations_without_a_count_are_zero() -> None:
    layer = pb.AccessLogKernelWriteL3Metrics(
        totalResolveMACDuration=5, totalNetFilterCount=1, totalNetFilterDuration=7
    )
    result = run(first(write(l3Metrics=layer)))
    found = _of(result)[("a",), NOON]
    assert found["kubernetes_service_resolve_mac_duration"] == 0
    assert found["kubernetes_service_write_netfilter_duration"] == 7
    assert result.quality == {}


SAME = link(pod("x" * 70 + "a"), pod("x" * 70 + "b"))
NO_BOOT = pb.EBPFAccessLogNodeInfo(name="n")
EXCLUDING = node(policy=pb.EBPFAccessLogPolicy(excludeNamespaces=["kube-system"]))


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("unknown_operation", message(pb.AccessLogKernelLog())),
        ("unknown_operation", first(protocol=pb.AccessLogProtocolLogs())),
        ("no_node", message(read(), connection=link())),
        ("no_boot_time", message(read(), node=NO_BOOT)),
        ("no_connection", message(read(), node=node())),
        ("no_local_address", first(read(), connection=pb.AccessLogConnection(role=9))),
        (
            "no_remote_address",
            first(read(), connection=pb.AccessLogConnection(local=pod("a"), role=9)),
        ),
        ("unknown_role", first(read(2**64 - 1), connection=link(role=9))),
        ("time_out_of_range", first(read(2**63), connection=SAME)),
        ("time_out_of_range", first(read(), node=node(-1, 999_999_999))),
        ("same_service", first(read(), connection=SAME)),
        ("same_service", first(read(), connection=link(pod("cart.shop"), ip("10.96.0.2")))),
    ],
)
def test_dropped(reason: str, sent: bytes) -> None:
    result = run(sent, dump=DUMP)
    assert result.dropped == {reason: 1}
    assert [(d.seq, d.position, d.reason) for d in result.dropped_logs] == [(0, 0, reason)]
    assert dict(drop_counts(result))[reason] == 1
    assert sum(count for _, count in drop_counts(result)) == result.logs == 1
    assert not any(result.values.values())


@pytest.mark.parametrize(
    ("connection", "relation"),
    [
        (link(remote=ip("10.0.0.7")), ("a", "dns.kube-system")),
        (link(remote=ip("10.0.0.8")), ("a", "Unknown")),
        (link(ip("10.96.0.10")), ("dns.kube-system", "b")),
    ],
)
def test_peers_in_excluded_namespaces_are_kept(
    connection: pb.AccessLogConnection, relation: tuple[str, str]
) -> None:
    result = run(first(read(), node=EXCLUDING, connection=connection), dump=DUMP)
    assert names(result, "service_relation") == {relation}


def test_the_last_representable_moment_counts() -> None:
    result = run(first(read(MAX - NOON * NS)))
    assert list(_of(result)) == [(("a",), MAX // NS // 60 * 60)]


def test_undecodable_messages_change_nothing() -> None:
    result = run(first(), *UNDECODABLE, message(read()))
    assert result.quality == {"undecodable_message": len(UNDECODABLE)}
    assert names(result, "service") == {("a",)}


@pytest.mark.parametrize("bad", UNDECODABLE)
def test_bad_messages_are_bad(bad: bytes) -> None:
    with pytest.raises(DecodeError):
        pb.EBPFAccessLogMessage().ParseFromString(bad)


def test_streams_do_not_share_their_state() -> None:
    rows = [(1, 0, LATE_NS, first()), (2, 0, LATE_NS, message(read()))]
    rows.append((1, 1, LATE_NS, message(read())))
    result = analyse(rows, EMPTY, DEFINITIONS)
    assert result.dropped == {"no_node": 1}
    assert names(result, "service") == {("a",)}


def test_a_new_node_keeps_the_connection() -> None:
    result = run(first(read()), message(read(), node=node(NOON + 60)))
    assert [bucket for _, bucket in _of(result)] == [NOON, NOON + 60]


@pytest.mark.parametrize(
    ("host", "second", "expected"),
    [
        ("10.0.0.2", 0, ("cart.shop", "cart-1")),
        ("10.0.0.2", 59, ("cart.shop", "cart-1")),
        ("10.0.0.2", 60, ("payments.pay", "payments-1")),
        ("10.0.0.3", 119, ("cart.shop", "cart-2")),
        ("10.0.0.3", 120, ("Unknown", "Unknown")),
        ("10.0.0.4", 29, ("cart.shop", "cart-3")),
        ("10.0.0.4", 30, ("Unknown", "Unknown")),
        ("10.0.0.4", 90, ("strict.pay", "payments-2")),
        ("10.0.0.13", 59, ("cart.shop", "replaced-while-running")),
        ("10.0.0.13", 60, ("payments.pay", "short-job")),
        ("10.0.0.13", 120, ("cart.shop", "replaced-while-running")),
        ("10.0.0.1", 60, ("frontend.shop", "frontend-1")),
        ("fd00::1", 0, ("frontend.shop", "frontend-1")),
        ("::ffff:10.0.0.1", 0, ("frontend.shop", "frontend-1")),
        ("10.0.0.6", 0, ("Unknown", "Unknown")),
        ("10.0.0.9", 0, ("timeless.shop", "no-creation")),
        ("10.0.0.10", 60, ("timeless.shop", "running-with-finished-container")),
        ("10.0.0.11", 0, ("cart.shop", "twin-a")),
        ("10.0.0.12", 0, ("cart.shop", "many-services")),
        ("10.0.0.12", 120, ("back.shop", "many-services")),
        ("10.0.0.20", 89, ("payments.pay", "behind-a-load-balancer-ip")),
        ("10.0.0.20", 90, ("payments.pay", "behind-a-load-balancer-ip")),
        ("010.00.0.1", 0, ("frontend.shop", "frontend-1")),
        ("192.168.0.1", 60, ("Unknown", "Unknown")),
        ("nonsense", 0, ("Unknown", "Unknown")),
    ],
)
def test_pod_of_an_ip(host: str, second: int, expected: tuple[str, str]) -> None:
    result = run(first(read(second * NS), connection=link(remote=ip(host))), dump=DUMP)
    assert names(result, "service_instance_relation") == {("a", "a-1", *expected)}


@pytest.mark.parametrize(
    ("host", "second", "expected"),
    [
        ("10.96.0.2", 0, "cart.shop"),
        ("fd00:96::1", 0, "frontend.shop"),
        ("203.0.113.7", 0, "cart.shop"),
        ("203.0.113.8", 0, "shared-a.shop"),
        ("10.96.0.13", 59, "reused-old.shop"),
        ("10.96.0.13", 60, "reused-new.pay"),
        ("10.96.0.14", 0, "timeless.shop"),
    ],
)
def test_service_of_an_ip(host: str, second: int, expected: str) -> None:
    result = run(first(read(second * NS), connection=link(remote=ip(host))), dump=DUMP)
    assert names(result, "service_relation") == {("a", expected)}
    assert result.values["service_instance_relation"] == {}


def test_the_cluster_is_a_prefix_of_names_found_by_ip() -> None:
    connection = link(pod("cart.shop"), ip("10.96.0.2"))
    result = run(first(read(), node=node(clusterName="east"), connection=connection), dump=DUMP)
    assert names(result, "service_relation") == {("cart.shop", "east::cart.shop")}


def _tunnel(host: str, by: int = 0) -> pb.ConnectionAttachment:
    found = pb.ZTunnelAttachmentEnvironment(real_destination_ip=host, by=by)
    return pb.ConnectionAttachment(zTunnel=found)


@pytest.mark.parametrize(
    ("attachment", "remote", "expected"),
    [
        (_tunnel("10.96.0.7"), ip("10.96.0.2"), "payments.pay"),
        (_tunnel("10.96.0.7", by=1), ip("10.96.0.2"), "cart.shop"),
        (_tunnel(""), ip("10.96.0.2"), "cart.shop"),
        (_tunnel("10.96.0.7"), pod("b"), "b"),
        (_tunnel("8.8.8.8"), ip("10.96.0.2"), "Unknown"),
    ],
)
def test_tunnels(
    attachment: pb.ConnectionAttachment, remote: pb.ConnectionAddress, expected: str
) -> None:
    connection = link(remote=remote, attachment=attachment)
    assert names(run(first(read(), connection=connection), dump=DUMP), "service_relation") == {
        ("a", expected)
    }


@pytest.mark.parametrize(
    ("role", "relation", "edge"),
    [
        (CLIENT, ("a", "b"), None),
        (SERVER, ("b", "a"), ("b", "Unknown", "a", "GET:/x", "unknown")),
        (PROXY, ("a", "b"), ("a", "Unknown", "b", "GET:/x", "unknown")),
    ],
)
def test_direction(role: int, relation: tuple[str, str], edge: tuple[str, ...] | None) -> None:
    # No metric of the tables is about a relation that a proxy reports.
    counted = Definition("m", "K8SServiceRelation", "*", "count")
    sent = first(read(), protocol=http(), connection=link(role=role))
    result = run(sent, definitions=[*DEFINITIONS, counted])
    assert names(result, "service_relation") == {relation}
    assert names(result, "endpoint") == ({("a", "GET:/x")} if edge else set())
    assert names(result, "endpoint_relation") == ({edge} if edge else set())


def test_an_unresolved_local_side_has_relations_only() -> None:
    connection = link(ip("8.8.8.8"), role=SERVER)
    result = run(first(read(), protocol=http(), connection=connection))
    assert {view: names(result, view) for view in result.values if result.values[view]} == {
        "service_relation": {("b", "Unknown")},
        "service_instance_relation": {("b", "b-1", "Unknown", "Unknown")},
        "endpoint_relation": {("b", "Unknown", "Unknown", "GET:/x", "unknown")},
    }


def test_two_unresolved_sides_are_not_the_same_service() -> None:
    result = run(first(read(), connection=link(pod("", "p"), ip(""))))
    assert names(result, "service_relation") == set()
    assert result.dropped == {"both_unknown": 1}


def test_a_pod_without_a_name_has_a_service_only() -> None:
    result = run(first(read(), connection=link(pod("a"))))
    assert names(result, "service") == {("a",)}
    assert result.values["service_instance"] == result.values["service_instance_relation"] == {}


def test_names_are_cut_by_code_point() -> None:
    face = "\N{GRINNING FACE}"
    connection = link(pod(face * 71, face * 71), role=SERVER)
    result = run(first(protocol=http(path=face * 200, method=99), connection=connection))
    assert names(result, "endpoint") == {(face * 70, "UNKNOWN:" + face * 142)}
    assert names(result, "service_instance_relation") == {("b", "b-1", face * 70, face * 70)}


def test_hours_and_days_come_from_all_logs() -> None:
    times = [0, 1, 59 * 60 * NS, 3_600 * NS]
    log = first(*(read(t, p) for t, p in zip(times, (1, 2, 6, 100), strict=True)))
    hours = _of(run(log, resolution="hour"))
    assert {bucket: found[SHOP_READ + "time"] for (_, bucket), found in hours.items()} == {
        HOUR: 3,
        HOUR + 3_600: 100,
    }
    days = _of(run(log, resolution="day"))
    assert {bucket: found[SHOP_READ + "time"] for (_, bucket), found in days.items()} == {DAY: 27}


def test_cpm_of_an_hour() -> None:
    hours = _of(run(first(*(read(n) for n in range(119))), resolution="hour"))
    assert hours[("a",), HOUR][SHOP_READ + "cpm"] == 1
    days = _of(run(first(*(read(n) for n in range(119))), resolution="day"))
    assert days[("a",), DAY][SHOP_READ + "cpm"] == 0


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (values_of("doubleAvg", "protocol.http.latency"), 17.75),
        (values_of("count", "*"), 4),
        (values_of("max", "protocol.http.latency"), 35),
        (values_of("min", "protocol.http.latency"), 5),
        (values_of("maxDouble", "protocol.http.latency"), 35.0),
        (values_of("minDouble", "protocol.http.latency"), 5.0),
        (values_of("rate", "*", "protocol.http.latency", "protocol.http.statusCode"), 645),
        (values_of("histogram", "protocol.http.latency", 10, 2), {0: 1, 10: 2, 20: 1}),
        (values_of("labelCount", "*", "protocol.http.statusCode"), {"200": 3, "500": 1}),
        (values_of("labelCount", "*", "protocol.http.statusCode", 1), {"200": 3}),
        (
            values_of("labelAvg", "*", "protocol.http.method", "protocol.http.latency"),
            {"GET": 17},
        ),
        (
            values_of("sum", "protocol.http.latency", filters=(parse_condition("type == null"),)),
            None,
        ),
        (
            values_of(
                "sum",
                "protocol.http.latency",
                filters=(parse_condition("protocol.http.statusCode in [500, 7]"),),
            ),
            35,
        ),
        (
            values_of("count", "*", filters=(parse_condition('protocol.http.url like "/x%"'),)),
            4,
        ),
    ],
)
def test_other_functions(definition: Definition, expected: object) -> None:
    served = calls((5, 200), (15, 200), (16, 200), (35, 500))
    found = _of(run(*served, definitions=[definition])).get((("a",), NOON), {})
    assert found.get("m") == expected


def test_no_rate_without_a_denominator() -> None:
    rate = values_of("rate", "*", "protocol.http.latency", "protocol.http.sizeOfRequestBody")
    assert _of(run(*calls((5, 200)), definitions=[rate])) == {}


def test_label_average_is_one_where_it_would_vanish() -> None:
    average = values_of("labelAvg", "*", "type", "read.duration")
    found = _of(run(first(read(0, 1), read(), read()), definitions=[average]))
    assert found == {(("a",), NOON): {"m": {"read": 1}}}


@pytest.mark.parametrize(
    ("more", "tls", "components"),
    [
        ({}, "Plain", (110,)),
        ({"tlsMode": 1}, "TLS", (130,)),
        ({"tlsMode": 9, "protocol": 9}, "Plain", (110,)),
        ({"protocol": 1}, "Plain", (49,)),
        ({"protocol": 2, "tlsMode": 1}, "TLS", (129,)),
        ({"attachment": _tunnel("")}, "Plain", (142, 162)),
    ],
)
def test_component_ids(more: dict[str, Any], tls: str, components: tuple[int, ...]) -> None:
    filters = [parse_condition(f"componentIds contain {one}") for one in components]
    filters.append(parse_condition(f'tlsMode == "{tls}"'))
    count = Definition("m", "K8SServiceRelation", "*", "count", tuple(filters))
    result = run(first(read(), connection=link(**more)), definitions=[count])
    assert result.values["service_relation"] == {(("a", "b"), NOON): {"m": 1}}


def test_device_names() -> None:
    made = node()
    made.netInterfaces.add(index=2, name="eth0")
    labels = Definition("m", "K8SService", "*", "labelCount", arguments=("read.l2.netDeviceName",))
    logs = [read(l2Metrics=pb.AccessLogKernelReadL2Metrics(ifindex=n)) for n in (2, 2, 3)]
    assert _of(run(first(*logs, node=made), definitions=[labels])) == {
        (("a",), NOON): {"m": {"eth0": 2, "": 1}}
    }


def test_dump_as_json_single_objects_and_several_documents() -> None:
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "n"}}
    service["spec"] = {"clusterIP": "10.1.1.1"}
    as_json = json.dumps(service)
    as_documents = f"---\nkind: Pod\nmetadata: {{name: p}}\n---\n{as_json}\n"
    as_list = json.dumps({"kind": "ServiceList", "items": [{**service, "kind": "Service"}]})
    for text in (as_json, as_documents, as_list, [as_json, as_list]):
        found = load_dump(text).find("10.1.1.1", 0)
        assert found is not None
        assert (found.namespace, found.service, found.pod) == ("n", "s", None)


def test_dump_from_files(tmp_path: Path) -> None:
    path = tmp_path / "dump.yaml"
    path.write_text(HOSTILE_DUMP, "utf-8")
    assert load_dump(path).find("10.96.0.2", NOON * NS) == DUMP.find("10.96.0.2", NOON * NS)


def _write_capture(path: Path, rows: list[tuple[int, int, int, bytes]]) -> None:
    schema = pa.schema(
        [
            pa.field("stream", pa.uint64(), nullable=False),
            pa.field("seq", pa.uint32(), nullable=False),
            pa.field("received_at", pa.timestamp("ns", "UTC"), nullable=False),
            pa.field("message", pa.binary(), nullable=False),
        ],
        {"framewalk.capture.version": "1"},
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for row in rows:
            columns = [pa.array([value], f.type) for value, f in zip(row, schema, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def test_reading_a_capture_up_to_its_torn_tail(tmp_path: Path) -> None:
    rows = [(2**64 - 1, 0, 1, b"one"), (7, 0, 2, b""), (2**64 - 1, 1, 3, b"\xff")]
    path = tmp_path / "a.capture.arrows"
    _write_capture(path, rows)
    assert read_capture_rows(path) == rows
    path.write_bytes(path.read_bytes()[:-40])
    assert read_capture_rows(path) == rows[:2]


@settings(max_examples=25)
@given(hostile_captures())
def test_hostile_captures_account_for_every_log(capture: HostileCapture) -> None:
    result = analyse(capture.rows, DUMP, DEFINITIONS)
    assert result.messages == len(capture.rows)
    assert result.dropped == Counter(log.reason for log in result.dropped_logs)
    kept = result.logs - result.dropped.total()
    counted = Definition("m", "K8SServiceRelation", "*", "count")
    again = analyse(capture.rows, DUMP, [counted])
    assert sum(v["m"] for v in again.values["service_relation"].values()) == kept


@settings(max_examples=25)
@given(hostile_captures())
def test_hours_add_up_to_the_minutes(capture: HostileCapture) -> None:
    name = "kubernetes_service_read_package_cpm"  # a sum of 32-bit numbers: never at the top
    minutes, hours = (
        analyse(capture.rows, DUMP, DEFINITIONS, resolution=one) for one in ("minute", "hour")
    )
    added: Counter[Any] = Counter()
    for (key, bucket), found in minutes.values["service"].items():
        added[key, bucket // 3_600 * 3_600] += found.get(name, 0)
    whole = {key: found.get(name, 0) for key, found in hours.values["service"].items()}
    assert +added == +Counter(whole)
