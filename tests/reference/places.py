"""Where a log belongs: its moment and the two sides of its connection."""

import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from framewalk.engine.wire import access_log_pb2 as pb
from reference.attributes import Operation, start_offset
from reference.dump import Directory, Found

LAST_NS = 2**63 - 1
MOST_AHEAD_NS = 300 * 10**9
NAME_LIMIT = 70
ENDPOINT_LIMIT = 150
UNKNOWN = "Unknown"
DETECT_POINTS = {0: "CLIENT", 1: "SERVER", 2: "PROXY"}


@dataclass
class Stream:
    """What the messages of one stream have said so far."""

    node: pb.EBPFAccessLogNodeInfo | None = None
    connection: pb.AccessLogConnection | None = None


@dataclass(frozen=True)
class Side:
    """One end of a connection; a cluster IP has no instance."""

    resolved: bool
    service: str
    instance: str | None


@dataclass(frozen=True)
class Place:
    """Where and when a log counts."""

    event_ns: int
    local: Side
    remote: Side
    detect_point: str

    @property
    def source(self) -> Side:
        """The side that called."""
        return self.remote if self.detect_point == "SERVER" else self.local

    @property
    def dest(self) -> Side:
        """The side that was called."""
        return self.local if self.detect_point == "SERVER" else self.remote


NOBODY = Side(resolved=False, service=UNKNOWN, instance=UNKNOWN)


def place_of(
    operation: Operation, stream: Stream, directory: Directory, received_at_ns: int
) -> Place | str:
    """Return the place of a log, or the first reason for which it is dropped."""
    reason = _missing(operation, stream)
    if reason is not None:
        return reason
    node, connection = stream.node, stream.connection
    event_ns = boot_ns(node) + start_offset(operation)
    if not 0 <= event_ns <= LAST_NS or event_ns > received_at_ns + MOST_AHEAD_NS:
        return "time_out_of_range"
    hosts = connection.local.ip.host, _remote_host(connection)
    local, remote = _sides(connection, hosts, event_ns, node, directory)
    if not local.resolved and not remote.resolved:
        return "both_unknown"
    if local.resolved and remote.resolved and local.service == remote.service:
        return "same_service"
    return Place(event_ns, local, remote, DETECT_POINTS[connection.role])


def endpoint_name(method: str, path: str) -> str:
    """Return the name of an endpoint: the path as it is meant, without its query."""
    asked = re.split("[?#]", path)[0]
    # What is not of UTF-8 stays as it came.
    with suppress(UnicodeDecodeError):
        asked = re.split("[?#]", unquote_to_bytes(asked).decode())[0]
    return f"{method}:{asked}"[:ENDPOINT_LIMIT]


def _missing(operation: Operation, stream: Stream) -> str | None:
    node, connection = stream.node, stream.connection
    checks = (
        ("unknown_operation", lambda: operation is None),
        ("no_node", lambda: node is None),
        ("no_boot_time", lambda: not node.HasField("bootTime")),
        ("no_connection", lambda: connection is None),
        ("no_local_address", lambda: not _is_set(connection.local)),
        ("no_remote_address", lambda: not _is_set(connection.remote)),
        ("unknown_role", lambda: connection.role not in DETECT_POINTS),
    )
    return next((reason for reason, applies in checks if applies()), None)


def _is_set(address: pb.ConnectionAddress) -> bool:
    return address.WhichOneof("address") is not None


def boot_ns(node: pb.EBPFAccessLogNodeInfo) -> int:
    """Return when the node booted, in nanoseconds."""
    return node.bootTime.seconds * 10**9 + node.bootTime.nanos


def _remote_host(connection: pb.AccessLogConnection) -> str:
    tunnel = connection.attachment.zTunnel
    replaced = (
        connection.attachment.HasField("zTunnel")
        and tunnel.by == pb.ZTUNNEL_OUTBOUND_FUNC
        and tunnel.real_destination_ip
    )
    return tunnel.real_destination_ip if replaced else connection.remote.ip.host


def _sides(
    connection: pb.AccessLogConnection,
    hosts: tuple[str, str],
    event_ns: int,
    node: pb.EBPFAccessLogNodeInfo,
    directory: Directory,
) -> list[Side]:
    called = 0 if DETECT_POINTS.get(connection.role) == "SERVER" else 1
    sides = []
    for number, address in enumerate((connection.local, connection.remote)):
        if address.HasField("kubernetes"):
            sides.append(_kubernetes_side(address.kubernetes))
            continue
        port, is_called = address.ip.port, number == called
        found = directory.find(hosts[number], event_ns, port, is_called=is_called)
        sides.append(NOBODY if found is None else _found_side(found, node.clusterName))
    return sides


def _kubernetes_side(process: pb.KubernetesProcessAddress) -> Side:
    if not process.serviceName:
        return NOBODY
    return Side(
        resolved=True,
        service=process.serviceName[:NAME_LIMIT],
        instance=process.podName[:NAME_LIMIT] or None,
    )


def _found_side(found: Found, cluster: str) -> Side:
    if found.service is None:
        return NOBODY
    prefix = f"{cluster}::" if cluster else ""
    return Side(
        resolved=True,
        service=f"{prefix}{found.service}.{found.namespace}"[:NAME_LIMIT],
        instance=found.pod[:NAME_LIMIT] if found.pod else None,
    )
