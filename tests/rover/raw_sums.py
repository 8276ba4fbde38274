"""An independent reader of a capture: raw messages, added up in plain Python.

It shares nothing with the engine but the classes that protoc made, and reads the capture files with
pyarrow alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reference import read_capture_rows

from framewalk.engine.wire import access_log_pb2 as pb
from framewalk.engine.wire import common_pb2

MINUTE_NS = 60 * 10**9
NS_PER_MS = 10**6
ROLES = {common_pb2.client: "client", common_pb2.server: "server"}

Operation = Any  # the five kernel operations and HTTP have no common type
Stream = tuple[str, int]  # the file, and the number in it
Sums = dict[tuple[tuple[str, ...], int], Counter[str]]


class Log(NamedTuple):
    """A log with the sides of its connection: services, or an IP address that nobody has."""

    kind: str
    operation: Operation
    local: str
    remote: str
    local_is_ip: bool
    role: str
    minute: int

    @property
    def source_and_dest(self) -> tuple[str, str]:
        """The service that called and the one that was called."""
        return (self.local, self.remote) if self.role == "client" else (self.remote, self.local)


class Counts(NamedTuple):
    """What a capture holds."""

    streams: int
    messages: int
    connections: int
    logs: int


def read_messages(folder: Path) -> Iterator[tuple[Stream, pb.EBPFAccessLogMessage]]:
    """Return each message of a folder of captures with its stream: each file counts from 0."""
    for path in sorted(folder.glob("*.arrows")):
        for row in read_capture_rows(path):
            yield (path.name, row.stream), pb.EBPFAccessLogMessage.FromString(row.message)


def count(folder: Path) -> Counts:
    """Return what a folder of captures holds."""
    streams, messages, connections, logs = set(), 0, 0, 0
    for stream, message in read_messages(folder):
        streams.add(stream)
        messages += 1
        connections += message.HasField("connection")
        logs += len(message.kernelLogs) + message.HasField("protocolLog")
    return Counts(len(streams), messages, connections, logs)


def read_logs(folder: Path, cluster: Path) -> list[Log]:
    """Return every log of a folder of captures."""
    services = services_by_ip(cluster)
    nodes: dict[Stream, pb.EBPFAccessLogNodeInfo] = {}
    connections: dict[Stream, pb.AccessLogConnection] = {}
    logs = []
    for stream, message in read_messages(folder):
        if message.HasField("node"):
            nodes[stream] = message.node
        if message.HasField("connection"):
            connections[stream] = message.connection
        boot = nodes[stream].bootTime
        boot_ns = boot.seconds * 10**9 + boot.nanos
        connection = connections[stream]
        for kind, operation in operations(message):
            event_ns = boot_ns + operation.startTime.offset.offset
            logs.append(
                Log(
                    kind,
                    operation,
                    _service(connection.local, services),
                    _service(connection.remote, services),
                    connection.local.HasField("ip"),
                    ROLES[connection.role],
                    event_ns // MINUTE_NS * 60,
                )
            )
    return logs


def operations(message: pb.EBPFAccessLogMessage) -> Iterator[tuple[str, Operation]]:
    """Return the operations in a message and what they are."""
    for log in message.kernelLogs:
        kind = log.WhichOneof("operation")
        assert kind is not None
        yield kind, getattr(log, kind)
    if message.HasField("protocolLog"):
        yield "http", message.protocolLog.http


def services_by_ip(cluster: Path) -> dict[str, str]:
    """Return the service behind each address of a cluster whose Services have a label each."""
    items = json.loads(cluster.read_text(encoding="utf-8"))["items"]
    found, by_app = {}, {}
    for item in items:
        meta, spec = item["metadata"], item["spec"]
        if item["kind"] == "Service":
            name = f"{meta['name']}.{meta['namespace']}"
            by_app[meta["namespace"], (spec.get("selector") or {}).get("app")] = name
            found[spec.get("clusterIP")] = name
    for item in items:
        meta = item["metadata"]
        if item["kind"] == "Pod":
            key = meta["namespace"], meta["labels"]["app"]
            found[item["status"]["podIP"]] = by_app[key]
    return found


def _service(address: pb.ConnectionAddress, services: dict[str, str]) -> str:
    if address.HasField("kubernetes"):
        return address.kubernetes.serviceName
    return services.get(address.ip.host, "Unknown")


def counted(logs: Iterable[Log]) -> list[Log]:
    """Return the logs between two services: the metrics are about traffic with others."""
    return [log for log in logs if log.local != log.remote]


def service_sums(logs: Iterable[Log]) -> Sums:
    """Return the sums of services: (service,) and minute -> metric -> sum.

    Their HTTP metrics are about what they serve.
    """
    sums: Sums = defaultdict(Counter)
    for log in logs:
        is_call_made = log.kind == "http" and log.role == "client"
        if log.local != "Unknown" and not is_call_made:
            place = sums[(log.local,), log.minute]
            place.update({f"kubernetes_service_{k}": v for k, v in _sums_of(log).items()})
    return sums


def relation_sums(logs: Iterable[Log]) -> Sums:
    """Return the sums of relations: (source, dest) and minute -> metric -> sum."""
    sums: Sums = defaultdict(Counter)
    for log in logs:
        prefix = "kubernetes_service_relation_"
        if log.kind in {"read", "write", "http"}:
            prefix += f"{log.role}_"
        place = sums[log.source_and_dest, log.minute]
        place.update({prefix + k: v for k, v in _sums_of(log).items()})
    return sums


def endpoint_sums(logs: Iterable[Log]) -> Sums:
    """Return the sums of endpoints: (service, METHOD:path) and minute -> metric -> sum."""
    sums: Sums = defaultdict(Counter)
    for log in logs:
        if log.kind == "http" and log.role == "server":
            key = (log.local, endpoint(log.operation)), log.minute
            sums[key].update(
                {f"kubernetes_service_endpoint_{k}": v for k, v in _sums_of(log).items()}
            )
    return sums


def endpoint(http: pb.AccessLogHTTPProtocol) -> str:
    """Return METHOD:path."""
    method = pb.AccessLogHTTPProtocolRequestMethod.Name(http.request.method)
    return f"{method.upper()}:{http.request.path}"


def _sums_of(log: Log) -> dict[str, int]:
    """Return what a log adds to which sum, named as the metrics end."""
    operation = log.operation
    duration = operation.endTime.offset.offset - operation.startTime.offset.offset
    match log.kind:
        case "read":
            return _read(operation)
        case "write":
            return _write(operation)
        case "http":
            return _http(operation, duration)
        case "connect":
            succeeded = {"connect_success_cpm": 1} if operation.success else {}
            return {"connect_cpm": 1, "connect_duration": duration, **succeeded}
        case _:
            return {f"{log.kind}_cpm": 1, f"{log.kind}_duration": duration}


def _read(read: pb.AccessLogKernelReadOperation) -> dict[str, int]:
    return {
        "read_cpm": 1,
        "read_package_cpm": read.l2Metrics.totalPackageCount,
        "read_package_size": read.l2Metrics.totalPackageSize,
        "read_l4_duration": read.l4Metrics.totalDuration,
        "read_l3_duration": read.l3Metrics.totalDuration,
        "read_l3_rcv_duration": read.l3Metrics.totalRecvDuration,
        "read_netfilter_cpm": read.l3Metrics.totalNetFilterCount,
    }


def _write(write: pb.AccessLogKernelWriteOperation) -> dict[str, int]:
    return {
        "write_cpm": 1,
        "write_package_cpm": write.l4Metrics.totalTransmitPackageCount,
        "write_retrains_package_cpm": write.l4Metrics.totalRetransmitPackageCount,
        "write_package_size": write.l4Metrics.totalPackageSize,
        "write_l4_duration": write.l4Metrics.totalDuration,
        "write_l3_duration": write.l3Metrics.totalDuration,
        "write_l2_duration": write.l2Metrics.totalDuration,
        "write_netfilter_cpm": write.l3Metrics.totalNetFilterCount,
    }


def _http(http: pb.AccessLogHTTPProtocol, duration_ns: int) -> dict[str, int]:
    status = http.response.statusCode
    return {
        "http_call_cpm": 1,
        "http_call_duration": duration_ns // NS_PER_MS,
        f"http_status_{status // 100}xx_cpm": 1,
        "http_req_header_size": http.request.sizeOfHeadersBytes,
        "http_req_body_size": http.request.sizeOfBodyBytes,
        "http_resp_header_size": http.response.sizeOfHeadersBytes,
        "http_resp_body_size": http.response.sizeOfBodyBytes,
    }
