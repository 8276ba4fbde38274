"""The made captures: reproducible, as Rover sends, and with everything they promise in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from framewalk.cli.main import app
from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.errors import InputError
from framewalk.engine.wire import access_log_pb2 as wire
from framewalk.engine.wire import common_pb2
from framewalk.fixtures import SCENARIOS, GenerateOptions, generate
from framewalk.fixtures.committed import COMMITTED, Committed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS)


@dataclass(frozen=True)
class Received:
    """A message with the node and the connection that it belongs to."""

    stream: int
    seq: int
    received_ns: int
    raw: bytes
    message: wire.EBPFAccessLogMessage
    node: wire.EBPFAccessLogNodeInfo
    connection: wire.AccessLogConnection

    @property
    def boot_ns(self) -> int:
        return self.node.bootTime.seconds * SECOND_NS + self.node.bootTime.nanos

    @property
    def connection_key(self) -> tuple[str, bytes, bytes, int]:
        connection = self.connection
        local, remote = connection.local, connection.remote
        both = local.SerializeToString(), remote.SerializeToString()
        return self.node.name, *both, connection.role


@dataclass(frozen=True)
class Exchange:
    """An HTTP request seen at one end, with absolute times."""

    received: Received
    http: wire.AccessLogHTTPProtocol

    @property
    def start_ns(self) -> int:
        return self.received.boot_ns + self.http.startTime.offset.offset

    @property
    def end_ns(self) -> int:
        return self.received.boot_ns + self.http.endTime.offset.offset

    @property
    def is_client(self) -> bool:
        return self.received.connection.role == common_pb2.client

    @property
    def pod(self) -> str:
        return self.received.connection.local.kubernetes.podName

    @property
    def call_key(self) -> tuple[str, str, str]:
        trace = self.http.request.trace
        return trace.traceId, trace.traceSegmentId, trace.spanId

    @property
    def served_from_ns(self) -> int:
        """When the request was there: a server's time before it is no service."""
        reads, writes = of_kernel(self.received, "read"), of_kernel(self.received, "write")
        first_write = min(each.startTime.offset.offset for each in writes)
        ends = [each.endTime.offset.offset for each in reads]
        return self.received.boot_ns + max(end for end in ends if end <= first_write)

    def encloses(self, inner: Exchange) -> bool:
        """Tell whether `inner` was served within this: within its service, if this is a server."""
        first = self.start_ns if self.is_client else self.served_from_ns
        begin = inner.start_ns if inner.is_client else inner.served_from_ns
        return first <= begin <= inner.end_ns <= self.end_ns


def committed(scenario: str) -> Committed:
    return next(each for each in COMMITTED if each.options.scenario == scenario)


def read_table(path: Path) -> pa.Table:
    with CaptureReader(path) as reader:
        return pa.Table.from_batches([batch.messages for batch in reader])


@cache
def received(scenario: str) -> list[Received]:
    return list(_received(committed(scenario).capture_path))


def _received(path: Path) -> Iterator[Received]:
    nodes: dict[int, wire.EBPFAccessLogNodeInfo] = {}
    connections: dict[int, wire.AccessLogConnection] = {}
    table = read_table(path)
    table = table.set_column(2, "received_ns", table["received_at"].cast(pa.int64()))
    for row in table.to_pylist():
        stream = row["stream"]
        message = wire.EBPFAccessLogMessage.FromString(row["message"])
        if message.HasField("node"):
            nodes[stream] = message.node
        if message.HasField("connection"):
            connections[stream] = message.connection
        yield Received(
            stream=stream,
            seq=row["seq"],
            received_ns=row["received_ns"],
            raw=row["message"],
            message=message,
            node=nodes[stream],
            connection=connections[stream],
        )


@cache
def exchanges(scenario: str) -> list[Exchange]:
    return [
        Exchange(each, each.message.protocolLog.http)
        for each in received(scenario)
        if each.message.HasField("protocolLog")
    ]


def operations(each: Received) -> Iterator[tuple[str, Any]]:
    for log in each.message.kernelLogs:
        kind = log.WhichOneof("operation")
        yield kind, getattr(log, kind)


def of_kernel(each: Received, wanted: str) -> list[Any]:
    return [operation for kind, operation in operations(each) if kind == wanted]


def local_port(connection: wire.AccessLogConnection) -> int:
    side = connection.local.WhichOneof("address")
    assert side is not None
    return int(getattr(connection.local, side).port)


def parsed_connections(scenario: str) -> Iterator[Received]:
    """The messages that announce a connection."""
    return (each for each in received(scenario) if each.message.HasField("connection"))


@cache
def dump(scenario: str) -> list[dict[str, Any]]:
    listing = yaml.safe_load(committed(scenario).dump_path.read_text(encoding="utf-8"))
    assert listing["kind"] == "List"
    items: list[dict[str, Any]] = listing["items"]
    return items


def of_kind(scenario: str, kind: str) -> list[dict[str, Any]]:
    return [item for item in dump(scenario) if item["kind"] == kind]


def known_addresses(scenario: str) -> set[str]:
    addresses = {pod["status"]["podIP"] for pod in of_kind(scenario, "Pod")}
    for service in of_kind(scenario, "Service"):
        addresses.update(service["spec"].get("clusterIPs", ()))
        ingress = service["status"]["loadBalancer"].get("ingress", ())
        addresses.update(each["ip"] for each in ingress)
    return addresses


def time_ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND_NS


def service_of_pod(scenario: str, address: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for pod in of_kind(scenario, "Pod"):
        if pod["status"]["podIP"] == address and not pod["spec"].get("hostNetwork"):
            metadata = pod["metadata"]
            yield time_ns(metadata["creationTimestamp"]), metadata["labels"]["app"], pod["status"]


# ---- reproducible ---------------------------------------------------------


@each_scenario
def test_committed_capture_is_what_the_generator_makes(scenario: str, tmp_path: Path) -> None:
    options, capture_path, dump_path = committed(scenario)
    summary = generate(options, tmp_path / "capture", tmp_path / "dump")
    made = read_table(tmp_path / "capture")
    assert made.equals(read_table(capture_path))
    assert (tmp_path / "dump").read_bytes() == dump_path.read_bytes()
    assert summary.messages == made.num_rows
    assert summary.streams == len(made["stream"].unique())
    assert summary.size_bytes == (tmp_path / "capture").stat().st_size
    protocol_logs = len(exchanges(scenario))
    kernel_logs = sum(len(each.message.kernelLogs) for each in received(scenario))
    assert summary.logs == kernel_logs + protocol_logs


def test_committed_captures_are_small() -> None:
    sizes = [each.capture_path.stat().st_size + each.dump_path.stat().st_size for each in COMMITTED]
    assert sum(sizes) < 3_000_000


@each_scenario
def test_seed_changes_the_capture_and_not_the_cluster(scenario: str, tmp_path: Path) -> None:
    tables = []
    dumps = []
    for seed in (1, 2):
        options = GenerateOptions(scenario, seed=seed, duration_s=10, requests_per_second=5)
        generate(options, tmp_path / "capture", tmp_path / "dump")
        tables.append(read_table(tmp_path / "capture")["message"])
        dumps.append((tmp_path / "dump").read_bytes())
    assert not tables[0].equals(tables[1])
    assert dumps[0] == dumps[1]


def test_parameters_scale_the_capture(tmp_path: Path) -> None:
    def made(options: GenerateOptions) -> tuple[int, int]:
        summary = generate(options, tmp_path / "capture", tmp_path / "dump")
        pods = yaml.safe_load((tmp_path / "dump").read_text(encoding="utf-8"))["items"]
        return summary.logs, sum(item["kind"] == "Pod" for item in pods)

    base = GenerateOptions("bookinfo", duration_s=20, requests_per_second=5, replicas=1)
    base_logs, base_pods = made(base)
    assert made(replace(base, duration_s=60))[0] > 2 * base_logs
    assert made(replace(base, requests_per_second=20))[0] > 2 * base_logs
    assert made(replace(base, replicas=3))[1] > base_pods


def test_progress_counts_simulated_seconds(tmp_path: Path) -> None:
    seconds: list[int] = []
    options = GenerateOptions("boutique", duration_s=4)
    generate(options, tmp_path / "capture", tmp_path / "dump", seconds.append)
    assert seconds == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scenario": "bookstore"}, "the scenarios are bookinfo, boutique"),
        ({"duration_s": 0}, "duration_s is 0"),
        ({"requests_per_second": -1.0}, "requests_per_second is -1.0"),
        ({"replicas": 0}, "replicas is 0"),
        ({"start": datetime(2026, 11, 2)}, "time zone"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_options_without_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        GenerateOptions(**{"scenario": "bookinfo", **changes})


def framewalk_generate(scenario: str, *options: str | Path) -> Result:
    short = ["--duration", "1", "--rate", "5"]
    return CliRunner().invoke(app, ["generate", scenario, *short, *map(str, options)])


@pytest.mark.parametrize("lost", [None, "kubectl.yaml", "bookinfo.capture.arrows"])
def test_nothing_is_overwritten_unasked(lost: str | None, tmp_path: Path) -> None:
    assert framewalk_generate("bookinfo", "-o", tmp_path).exit_code == 0
    if lost:
        (tmp_path / lost).unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = framewalk_generate("bookinfo", "-o", tmp_path, "--seed", "2")
    assert isinstance(again.exception, InputError)
    assert again.exception.problem == "this file is there already"
    assert "--force" in again.exception.remedy
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert framewalk_generate("boutique", "-o", tmp_path, "--force").exit_code == 0
    assert "boutique.capture.arrows" in {path.name for path in tmp_path.iterdir()}


def test_the_dump_of_another_cluster_stays(tmp_path: Path) -> None:
    assert framewalk_generate("bookinfo", "-o", tmp_path).exit_code == 0
    dump = tmp_path / "kubectl.yaml"
    before = dump.read_bytes()
    refused = framewalk_generate("boutique", "-o", tmp_path).exception
    assert isinstance(refused, InputError)
    assert (refused.place, dump.read_bytes()) == (str(dump), before)
    assert not (tmp_path / "boutique.capture.arrows").exists()


@pytest.mark.parametrize(
    "start", ["2027-03-01T07:00:00", "2027-03-01T09:00:00+02:00", "2027-03-01T00:00:00-07:00"]
)
def test_a_start_is_in_utc_or_says_where(start: str, tmp_path: Path) -> None:
    assert framewalk_generate("bookinfo", "-o", tmp_path, "--start", start).exit_code == 0
    first = read_table(tmp_path / "bookinfo.capture.arrows")["received_at"][0].value
    begin_ns = time_ns("2027-03-01T07:00:00+00:00")
    assert begin_ns <= first < begin_ns + MINUTE_NS


# ---- as Rover sends -------------------------------------------------------


@each_scenario
def test_streams_carry_node_and_connections_once(scenario: str) -> None:
    last_seq: dict[int, int] = {}
    announced: set[tuple[int, bytes]] = set()
    for each in received(scenario):
        assert each.seq == last_seq.get(each.stream, -1) + 1
        last_seq[each.stream] = each.seq
        assert each.message.HasField("node") == (each.seq == 0)
        if each.message.HasField("connection"):
            key = (each.stream, each.connection.SerializeToString(deterministic=True))
            assert key not in announced or not local_port(each.connection)
            announced.add(key)
        assert each.message.SerializeToString(deterministic=True) == each.raw


@each_scenario
def test_messages_arrive_in_order_and_after_their_logs(scenario: str) -> None:
    previous_ns = 0
    for each in received(scenario):
        assert each.received_ns >= previous_ns
        previous_ns = each.received_ns
        for _, operation in operations(each):
            start, end = operation.startTime.offset.offset, operation.endTime.offset.offset
            assert 0 < start < end
            assert each.boot_ns + end < each.received_ns


@each_scenario
def test_streams_of_several_nodes_interleave(scenario: str) -> None:
    messages = received(scenario)
    nodes = {each.node.name: each.node for each in messages}
    assert len(nodes) >= 3
    assert len({each.boot_ns for each in messages}) == len(nodes)
    assert all(node.bootTime.nanos > 0 for node in nodes.values())
    assert all(len(node.netInterfaces) > 3 for node in nodes.values())
    excluding = {bool(node.policy.excludeNamespaces) for node in nodes.values()}
    assert excluding == {True, False}
    expected_cluster = {"bookinfo": "", "boutique": "shop-eu"}[scenario]
    assert {node.clusterName for node in nodes.values()} == {expected_cluster}
    switches = sum(a.stream != b.stream for a, b in pairwise(messages))
    assert switches > 3 * len({each.stream for each in messages})


@each_scenario
def test_some_flushes_are_late(scenario: str) -> None:
    delays_ns: dict[int, int] = {}
    for each in exchanges(scenario):
        delay_ns = each.received.received_ns - each.end_ns
        delays_ns[each.received.stream] = delay_ns
    late = [delay_ns for delay_ns in delays_ns.values() if delay_ns > 10.5 * SECOND_NS]
    assert 3 <= len(late) < len(delays_ns) / 10


@each_scenario
def test_capture_has_four_whole_minutes_and_starts_inside_one(scenario: str) -> None:
    starts_ns = [each.start_ns for each in exchanges(scenario)]
    assert 10 * SECOND_NS < min(starts_ns) % MINUTE_NS < 50 * SECOND_NS
    per_minute = Counter(start_ns // MINUTE_NS for start_ns in starts_ns)
    assert sum(count > 1_000 for count in per_minute.values()) >= 4


def test_stream_ends_at_ten_thousand_logs(tmp_path: Path) -> None:
    options = GenerateOptions("boutique", duration_s=6, requests_per_second=250)
    generate(options, tmp_path / "capture", tmp_path / "dump")
    logs: Counter[int] = Counter()
    for each in _received(tmp_path / "capture"):
        message = each.message
        logs[each.stream] += len(message.kernelLogs) + message.HasField("protocolLog")
    assert 9_900 < max(logs.values()) <= 10_000


# ---- connections ----------------------------------------------------------


@each_scenario
def test_connections_are_kept_alive(scenario: str) -> None:
    requests: Counter[tuple[str, bytes, bytes, int]] = Counter()
    streams = defaultdict(set)
    for each in exchanges(scenario):
        requests[each.received.connection_key] += 1
        streams[each.received.connection_key].add(each.received.stream)
    assert max(requests.values()) > 100
    assert sum(count >= 20 for count in requests.values()) > 20
    assert max(len(each) for each in streams.values()) > 20


@each_scenario
def test_http_1_connections_serve_one_request_at_a_time(scenario: str) -> None:
    by_connection = defaultdict(list)
    for each in exchanges(scenario):
        if each.http.version == wire.HTTP1:
            by_connection[each.received.connection_key].append((each.start_ns, each.end_ns))
    for times in by_connection.values():
        times.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(times))


@each_scenario
def test_connections_of_every_kind_occur(scenario: str) -> None:
    connections = [each.connection for each in received(scenario)]
    kinds = Counter((each.role, each.protocol, each.tlsMode) for each in connections)
    inner = wire.HTTP_1 if scenario == "bookinfo" else wire.HTTP_2
    for role in (common_pb2.client, common_pb2.server):
        assert kinds[role, wire.TCP, wire.Plain] > 50
        assert kinds[role, inner, wire.Plain] > 1_000
    assert kinds[common_pb2.client, wire.HTTP_1, wire.TLS] > 30
    if scenario == "bookinfo":
        assert kinds[common_pb2.server, wire.HTTP_1, wire.TLS] > 500
    sides = Counter(
        (side, getattr(each, side).WhichOneof("address"))
        for each in connections
        for side in ("local", "remote")
    )
    assert len(sides) == 4
    assert min(sides.values()) > 100
    processes = [each.local.kubernetes for each in connections if each.local.HasField("kubernetes")]
    assert all(each.containerName and each.processName for each in processes)


@each_scenario
def test_servers_that_block_have_the_wait_in_their_logs(scenario: str) -> None:
    waits = Counter(
        (each.http.version, each.served_from_ns - each.start_ns > SECOND_NS)
        for each in exchanges(scenario)
        if not each.is_client
    )
    assert (waits[wire.HTTP1, True] > 100) == (scenario == "bookinfo")
    assert waits[wire.HTTP2, True] == 0
    for each in exchanges(scenario):
        found = [operation for _, operation in operations(each.received)]
        starts = [operation.startTime.offset.offset for operation in found]
        ends = [operation.endTime.offset.offset for operation in found]
        assert each.http.startTime.offset.offset == min(starts)
        assert each.http.endTime.offset.offset == max(ends)


@each_scenario
def test_ztunnel_attachments_occur(scenario: str) -> None:
    kinds: Counter[tuple[int, int]] = Counter()
    for each in received(scenario):
        if not each.message.HasField("connection"):
            continue
        if each.connection.attachment.WhichOneof("environment") is None:
            continue
        tunnel = each.connection.attachment.zTunnel
        kinds[tunnel.by, tunnel.security_policy] += 1
        assert tunnel.real_destination_ip
        if tunnel.by == wire.ZTUNNEL_OUTBOUND_FUNC:
            assert each.connection.remote.ip.host != tunnel.real_destination_ip
            assert each.connection.role == common_pb2.client
    assert len(kinds) == 4
    assert min(kinds.values()) >= 5


@each_scenario
def test_every_operation_and_metric_occurs(scenario: str) -> None:
    counts: Counter[str] = Counter()
    for each in received(scenario):
        for kind, operation in operations(each):
            counts[kind] += 1
            if kind in {"connect", "close"}:
                counts[f"{kind} {operation.success}"] += 1
            elif kind == "write":
                counts["retransmit"] += operation.l4Metrics.totalRetransmitPackageCount > 0
                counts["resolve MAC"] += operation.l3Metrics.totalResolveMACCount > 0
                counts["write filter"] += operation.l3Metrics.totalNetFilterCount > 0
                counts["no layers"] += operation.l2Metrics.ifindex == 0
                assert operation.l2Metrics.ifindex in {0, 2}
            elif kind == "read":
                counts["read filter"] += operation.l3Metrics.totalNetFilterCount > 0
                counts["packages"] += operation.l2Metrics.totalPackageSize > 0
                took_ns = operation.endTime.offset.offset - operation.startTime.offset.offset
                counts["longer"] += operation.l4Metrics.totalDuration > took_ns
                counts["wrapped"] += operation.l4Metrics.totalDuration > 4 * SECOND_NS
                assert operation.l3Metrics.totalRecvDuration == 0
                assert operation.l2Metrics.ifindex == 2
    for kind in ("connect True", "close False", "accept", "retransmit", "resolve MAC"):
        assert counts[kind] >= 20, kind
    assert counts["connect False"] >= 1
    assert counts["close True"] == 0
    assert 0.9 < counts["write filter"] / counts["write"] < 1
    assert 0 < counts["read filter"] / counts["read"] < 0.3
    assert 0.005 < counts["no layers"] / counts["write"] < 0.05
    assert 0.1 < counts["longer"] / counts["read"] < 0.6
    assert 0 < counts["wrapped"] / counts["read"] < 0.05
    assert counts["packages"] == counts["read"]


# ---- peers ----------------------------------------------------------------


@each_scenario
def test_some_peers_are_unresolved(scenario: str) -> None:
    known = known_addresses(scenario)
    unknown: Counter[int] = Counter()
    for each in received(scenario):
        remote = each.connection.remote
        if remote.HasField("ip") and remote.ip.host not in known:
            unknown[each.connection.role] += 1
    assert unknown[common_pb2.server] > 200
    assert unknown[common_pb2.client] > 10


@each_scenario
def test_a_pod_of_the_same_node_is_known_as_a_process(scenario: str) -> None:
    pods = {
        pod["status"]["podIP"]: pod["spec"]["nodeName"]
        for pod in of_kind(scenario, "Pod")
        if pod["metadata"]["namespace"] == scenario and not pod["spec"].get("hostNetwork")
    }
    near: Counter[str] = Counter()
    mistaken = 0
    for each in parsed_connections(scenario):
        remote = each.connection.remote
        if each.connection.attachment.WhichOneof("environment"):
            continue
        if remote.HasField("kubernetes"):
            near["process"] += 1
        elif pods.get(remote.ip.host) == each.node.name:
            near["address"] += 1
            mistaken += each.connection.role == common_pb2.server
    assert near["process"] > 100
    assert near["address"] < near["process"] / 10
    assert mistaken >= 1


@each_scenario
def test_pods_of_one_service_talk_to_each_other(scenario: str) -> None:
    path = {"bookinfo": "/reviews/internal/sync", "boutique": "/Reload"}[scenario]
    sides = Counter(
        each.is_client for each in exchanges(scenario) if each.http.request.path.endswith(path)
    )
    assert sides[True] == sides[False] > 5


@each_scenario
def test_namespace_that_some_nodes_exclude_is_called(scenario: str) -> None:
    dns = {
        item["status"]["podIP"]
        for item in of_kind(scenario, "Pod")
        if item["metadata"]["namespace"] == "kube-system" and not item["spec"].get("hostNetwork")
    }
    excluded = Counter(
        bool(each.node.policy.excludeNamespaces)
        for each in received(scenario)
        if each.connection.remote.ip.host in dns
    )
    assert excluded[True] >= 1
    assert excluded[False] >= 1


@each_scenario
def test_address_is_reused_by_a_pod_of_another_service(scenario: str) -> None:
    by_address = {
        pod["status"]["podIP"]: list(service_of_pod(scenario, pod["status"]["podIP"]))
        for pod in of_kind(scenario, "Pod")
    }
    address, owners = next(
        (address, sorted(owners, key=lambda owner: owner[0]))
        for address, owners in by_address.items()
        if len(owners) == 2
    )
    (_, old_service, old_status), (since_ns, new_service, _) = owners
    assert old_service != new_service
    terminated = old_status["containerStatuses"][0]["state"]["terminated"]
    assert old_status["phase"] in ("Failed", "Succeeded")
    finished_ns = time_ns(terminated["finishedAt"])
    assert finished_ns < since_ns
    used = Counter(
        each.start_ns >= since_ns
        for each in exchanges(scenario)
        if address
        in (
            each.received.connection.remote.ip.host,
            each.received.connection.attachment.zTunnel.real_destination_ip,
        )
        and not finished_ns < each.start_ns < since_ns
    )
    assert min(used[True], used[False]) >= 10


@each_scenario
def test_pods_only_serve_while_they_exist(scenario: str) -> None:
    created_ns = {
        pod["metadata"]["name"]: time_ns(pod["metadata"]["creationTimestamp"])
        for pod in of_kind(scenario, "Pod")
    }
    gone = set()
    for each in exchanges(scenario):
        if each.pod and each.pod not in created_ns:
            gone.add(each.pod)
        assert each.start_ns > created_ns.get(each.pod, 0)
    assert len(gone) == 1


# ---- calls ----------------------------------------------------------------


@each_scenario
def test_both_ends_of_a_call_agree(scenario: str) -> None:
    ends: dict[tuple[str, str, str], dict[bool, Exchange]] = defaultdict(dict)
    for each in exchanges(scenario):
        if each.http.request.HasField("trace"):
            assert each.is_client not in ends[each.call_key]
            ends[each.call_key][each.is_client] = each
    pairs = [both for both in ends.values() if len(both) == 2]
    assert len(pairs) > 1_000
    for both in pairs:
        client, server = both[True], both[False]
        assert client.http.request == server.http.request
        assert client.http.response == server.http.response
        assert client.encloses(server)


@each_scenario
def test_every_call_inside_is_seen_at_both_ends(scenario: str) -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for each in exchanges(scenario):
        seen[each.http.request.host, each.is_client] += 1
    hosts = {"bookinfo": ("reviews:9080", "ratings:9080"), "boutique": ("cartservice:7070",)}
    for host in hosts[scenario]:
        assert seen[host, True] == seen[host, False] > 500


@each_scenario
def test_calls_lie_within_the_request_they_serve(scenario: str) -> None:
    serving = defaultdict(list)
    for each in exchanges(scenario):
        if not each.is_client and each.pod and each.http.request.HasField("trace"):
            serving[each.pod, each.http.request.trace.traceId].append(each)
    inside = 0
    for each in exchanges(scenario):
        candidates = serving.get((each.pod, each.http.request.trace.traceId), ())
        if each.is_client and candidates:
            assert any(parent.encloses(each) for parent in candidates)
            inside += 1
    assert inside > 500


@each_scenario
def test_traces_of_both_kinds_and_none(scenario: str) -> None:
    kinds: Counter[tuple[int, bool, bool]] = Counter()
    for each in exchanges(scenario):
        trace = each.http.request.trace
        kinds[trace.provider, bool(trace.traceId), bool(trace.traceSegmentId)] += 1
        assert bool(trace.traceId) == bool(trace.spanId)
    assert set(kinds) == {
        (wire.SkyWalking, True, True),
        (wire.Zipkin, True, False),
        (wire.Zipkin, False, False),
    }
    assert min(kinds.values()) > 500


@each_scenario
def test_kernel_logs_lie_within_their_request(scenario: str) -> None:
    for each in exchanges(scenario):
        start, end = each.http.startTime.offset.offset, each.http.endTime.offset.offset
        kinds = set()
        for kind, operation in operations(each.received):
            kinds.add(kind)
            assert start <= operation.startTime.offset.offset
            assert operation.endTime.offset.offset <= end
        assert kinds == {"read", "write"}


@each_scenario
def test_latencies_have_a_tail(scenario: str) -> None:
    by_path = defaultdict(list)
    for each in exchanges(scenario):
        if not each.is_client:
            by_path[each.http.request.path].append(each.end_ns - each.start_ns)
    latencies = sorted(max(by_path.values(), key=len))
    median, high = latencies[len(latencies) // 2], latencies[len(latencies) * 98 // 100]
    assert high > 2 * median
    assert latencies[-1] > 5 * median


@each_scenario
def test_errors_come_in_bursts_among_some_refusals(scenario: str) -> None:
    host = {"bookinfo": "ratings:9080", "boutique": "recommendationservice:8080"}[scenario]
    failing = [
        each
        for each in exchanges(scenario)
        if each.http.request.host == host and each.http.response.statusCode == 503
    ]
    assert len(failing) > 30
    starts_ns = [each.start_ns for each in failing]
    assert max(starts_ns) - min(starts_ns) < 45 * SECOND_NS
    statuses = Counter(each.http.response.statusCode // 100 for each in exchanges(scenario))
    assert 20 < statuses[4] < statuses[2] / 50


# ---- the Kubernetes dump --------------------------------------------------


@each_scenario
def test_dump_has_what_a_cluster_has(scenario: str) -> None:
    pods, services = of_kind(scenario, "Pod"), of_kind(scenario, "Service")
    assert any(pod["spec"].get("hostNetwork") for pod in pods)
    assert all(pod["spec"]["nodeName"] and pod["metadata"]["uid"] for pod in pods)
    uids = [item["metadata"]["uid"] for item in dump(scenario)]
    assert len(set(uids)) == len(uids)
    types = Counter(item["spec"].get("type") for item in services)
    assert min(types["LoadBalancer"], types["ExternalName"]) >= 1
    assert any(item["spec"].get("clusterIP") == "None" for item in services)
    namespaces = {item["metadata"]["namespace"] for item in dump(scenario)}
    assert {scenario, "kube-system", "default"} <= namespaces
    addresses = [item["spec"]["clusterIP"] for item in services if "clusterIP" in item["spec"]]
    routable = [address for address in addresses if address != "None"]
    assert len(set(routable)) == len(routable)


def test_the_truth_tells_each_log_and_what_it_was_for(tmp_path: Path) -> None:
    """By the clocks of the nodes, which are apart; lost logs are in neither."""
    options = GenerateOptions(
        "boutique",
        duration_s=12,
        requests_per_second=10,
        clock_offset_s=2,
        lost_permille=100,
        traced_permille=1000,
        one_request_permille=500,
    )
    generate(options, tmp_path / "capture", tmp_path / "dump", truth_path=tmp_path / "truth")
    calls = pq.read_table(tmp_path / "truth").to_pylist()
    told = Counter(
        (side, call[f"{side}_log_ns"], call["path"])
        for call in calls
        for side in ("client", "server")
        if call[f"{side}_log_ns"] is not None
    )
    nodes: dict[int, Any] = {}
    roles: dict[int, int] = {}
    seen: Counter[tuple[str, int, str]] = Counter()
    with CaptureReader(tmp_path / "capture") as reader:
        for batch in reader:
            for row in batch.messages.select(["stream", "message"]).to_pylist():
                message = wire.EBPFAccessLogMessage.FromString(row["message"])
                if message.HasField("node"):
                    nodes[row["stream"]] = message.node.bootTime
                if message.HasField("connection"):
                    roles[row["stream"]] = message.connection.role
                if message.HasField("protocolLog"):
                    http, boot = message.protocolLog.http, nodes[row["stream"]]
                    boot_ns = boot.seconds * 10**9 + boot.nanos
                    side = ("client", "server")[roles[row["stream"]]]
                    seen[side, boot_ns + http.startTime.offset.offset, http.request.path] += 1
    assert seen == told
    by_number = {call["call"]: call for call in calls}
    made = [call for call in calls if call["source_call"] is not None]
    assert len(made) > 100
    for call in made:
        source = by_number[call["source_call"]]
        assert source["server_pod"] == call["client_pod"]
        assert source["arrived_ns"] <= call["sent_ns"] <= call["returned_ns"] <= source["served_ns"]
    both = [call for call in calls if call["client_log_ns"] and call["server_log_ns"]]
    apart = {round((call["server_log_ns"] - call["client_log_ns"]) / 10**9) for call in both}
    assert max(apart) - min(apart) >= 2
