"""Every table that passes between stages: names, types and units in one place.

Log frames (flatten) have one row per log. Columns that come straight from a message are
listed as leaves: the column's name and the path of the protobuf field it holds (wire.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

UNKNOWN: Final = "Unknown"
UNKNOWN_DERIVATION: Final = "unknown"

SERVICE_LENGTH: Final = 70
INSTANCE_LENGTH: Final = 70
ENDPOINT_LENGTH: Final = 150
# As long as Kubernetes lets the name of a node be.
NODE_NAME_LENGTH: Final = 253

DEFAULT_APDEX_THRESHOLD_MS: Final = 500
# How far an event may be ahead of its arrival.
DEFAULT_MOST_AHEAD_S: Final = 300

KERNEL_OPERATIONS: Final = ("connect", "accept", "close", "read", "write")
OPERATIONS: Final = (*KERNEL_OPERATIONS, "http")

ROLES: Final = ("client", "server", "proxy")
TLS_MODES: Final = ("Plain", "TLS")
HTTP_VERSIONS: Final = ("HTTP1", "HTTP2")
TRACE_PROVIDERS: Final = ("Zipkin", "SkyWalking")
HTTP_METHODS: Final = (
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "HEAD",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
)
READ_SYSCALLS: Final = ("Read", "Readv", "Recv", "RecvFrom", "RecvMsg", "RecvMmsg")
WRITE_SYSCALLS: Final = (
    "Write",
    "Writev",
    "Send",
    "SendTo",
    "SendMsg",
    "SendMmsg",
    "SendFile",
    "SendFile64",
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One column of a log frame and the protobuf field that it holds."""

    column: str
    path: tuple[str, ...]


def _leaves(**paths: str) -> tuple[Leaf, ...]:
    return tuple(Leaf(column, tuple(path.split("."))) for column, path in paths.items())


TIME_LEAVES: Final = _leaves(
    start_offset_ns="startTime.offset.offset", end_offset_ns="endTime.offset.offset"
)

# Columns named *_ns, *_bytes and *_count are Int64 and never negative after flatten.
OPERATION_LEAVES: Final[dict[str, tuple[Leaf, ...]]] = {
    "connect": _leaves(success="success"),
    "accept": (),
    "close": _leaves(success="success"),
    "read": _leaves(
        syscall="syscall",
        l4_duration_ns="l4Metrics.totalDuration",
        l3_duration_ns="l3Metrics.totalDuration",
        l3_rcv_duration_ns="l3Metrics.totalRecvDuration",
        l3_local_duration_ns="l3Metrics.totalLocalDuration",
        l3_net_filter_count="l3Metrics.totalNetFilterCount",
        l3_net_filter_duration_ns="l3Metrics.totalNetFilterDuration",
        l2_ifindex="l2Metrics.ifindex",
        l2_package_count="l2Metrics.totalPackageCount",
        l2_total_package_size_bytes="l2Metrics.totalPackageSize",
        l2_package_to_queue_duration_ns="l2Metrics.totalPackageToQueueDuration",
        l2_rcv_package_from_queue_duration_ns="l2Metrics.totalRcvPackageFromQueueDuration",
    ),
    "write": _leaves(
        syscall="syscall",
        l4_duration_ns="l4Metrics.totalDuration",
        l4_transmit_package_count="l4Metrics.totalTransmitPackageCount",
        l4_retransmit_package_count="l4Metrics.totalRetransmitPackageCount",
        l4_total_package_size_bytes="l4Metrics.totalPackageSize",
        l3_duration_ns="l3Metrics.totalDuration",
        l3_local_duration_ns="l3Metrics.totalLocalDuration",
        l3_output_duration_ns="l3Metrics.totalOutputDuration",
        l3_resolve_mac_count="l3Metrics.totalResolveMACCount",
        l3_resolve_mac_duration_ns="l3Metrics.totalResolveMACDuration",
        l3_net_filter_count="l3Metrics.totalNetFilterCount",
        l3_net_filter_duration_ns="l3Metrics.totalNetFilterDuration",
        l2_duration_ns="l2Metrics.totalDuration",
        l2_ifindex="l2Metrics.ifindex",
        l2_enter_queue_buffer_count="l2Metrics.totalEnterQueueBufferCount",
        l2_ready_send_duration_ns="l2Metrics.totalReadySendDuration",
        l2_network_device_send_duration_ns="l2Metrics.totalNetDeviceSendDuration",
    ),
    "http": _leaves(
        method="request.method",
        path="request.path",
        request_header_size_bytes="request.sizeOfHeadersBytes",
        request_body_size_bytes="request.sizeOfBodyBytes",
        status_code="response.statusCode",
        response_header_size_bytes="response.sizeOfHeadersBytes",
        response_body_size_bytes="response.sizeOfBodyBytes",
    ),
}

# What the archive has of a log beside (engine/archive).
KEPT_LEAVES: Final[dict[str, tuple[Leaf, ...]]] = {
    "http": _leaves(
        version="version",
        host="request.host",
        trace_provider="request.trace.provider",
        trace_id="request.trace.traceId",
        trace_segment_id="request.trace.traceSegmentId",
        trace_span_id="request.trace.spanId",
    ),
}

# A duration that counts only where its count is not 0 (analysis.md, section 3, quirk).
GUARDED_DURATIONS: Final[dict[str, dict[str, str]]] = {
    "read": {"l3_net_filter_duration_ns": "l3_net_filter_count"},
    "write": {
        "l3_net_filter_duration_ns": "l3_net_filter_count",
        "l3_resolve_mac_duration_ns": "l3_resolve_mac_count",
    },
}

# Leading columns of every log frame. `connection` is a row of the connections frame.
LOG_COLUMNS: Final = {
    "connection": pl.UInt32,
    "time_ns": pl.Int64,
    "duration_ns": pl.Int64,
}

NODE_LEAVES: Final = _leaves(
    boot_seconds="bootTime.seconds",
    boot_nanos="bootTime.nanos",
    node_name="name",
    cluster_name="clusterName",
    net_interfaces="netInterfaces",
)

CONNECTION_LEAVES: Final = _leaves(
    local_service="local.kubernetes.serviceName",
    local_pod="local.kubernetes.podName",
    local_pod_port="local.kubernetes.port",
    local_ip="local.ip.host",
    local_port="local.ip.port",
    remote_service="remote.kubernetes.serviceName",
    remote_pod="remote.kubernetes.podName",
    remote_pod_port="remote.kubernetes.port",
    remote_ip="remote.ip.host",
    remote_port="remote.ip.port",
    role="role",
    tls_mode="tlsMode",
    protocol="protocol",
    ztunnel_ip="attachment.zTunnel.real_destination_ip",
    ztunnel_by="attachment.zTunnel.by",
    ztunnel_policy="attachment.zTunnel.security_policy",
)

# Names are cut before logs repeat them; no address is written in so many characters.
_ADDRESS_LENGTH: Final = 100
NAME_LENGTHS: Final = {
    "node_name": NODE_NAME_LENGTH,
    "cluster_name": SERVICE_LENGTH,
    "local_service": SERVICE_LENGTH,
    "local_pod": INSTANCE_LENGTH,
    "local_ip": _ADDRESS_LENGTH,
    "remote_service": SERVICE_LENGTH,
    "remote_pod": INSTANCE_LENGTH,
    "remote_ip": _ADDRESS_LENGTH,
    "ztunnel_ip": _ADDRESS_LENGTH,
}
# Of a node's network interfaces so many count.
MOST_NODE_ITEMS: Final = 1_000

# Which of the optional sub-messages of a connection are set.
CONNECTION_PRESENCE: Final = _leaves(
    local_is_kubernetes="local.kubernetes",
    local_is_ip="local.ip",
    remote_is_kubernetes="remote.kubernetes",
    remote_is_ip="remote.ip",
    has_ztunnel="attachment.zTunnel",
)

# The reasons for which a log is dropped, in the order they are checked (docs/semantics.md).
DROP_REASONS: Final = (
    "unknown_operation",
    "no_node",
    "no_boot_time",
    "no_connection",
    "no_local_address",
    "no_remote_address",
    "unknown_role",
    "time_out_of_range",
    "stream_entities",
    "stream_minutes",
    "both_unknown",
    "same_service",
    "minute_entities",
)
AHEAD_REASON: Final = "time_out_of_range"
NEAR_CHANGE: Final = "near_change"
# How far clocks of nodes are taken to be wrong, where an address changes hands.
MOST_SKEW_NS: Final = 30 * 10**9
# For how long a request that was being served may have made calls.
LONGEST_SERVED_NS: Final = 600 * 10**9
QUALITY_COUNTERS: Final = (
    "undecodable_message",
    "oversized_message",
    "negative_duration",
    "value_out_of_range",
    "damaged_bytes",
    "quarantined",
    "other_endpoints",
    NEAR_CHANGE,
)


# The ids of SkyWalking's components; a peer's `components` has bit i set for COMPONENT_IDS[i].
COMPONENT_IDS: Final = (49, 110, 129, 130, 142, 162)

# Traffic of addresses without a name, by hour (hours since 1970). `port` is 0 where the address is
# not that of the called side, `side` is its part in the calls: client or server. `address` is the
# name of a Pod where Rover sent that; `partner` is the service at the other end, `node` that which
# saw it.
UNKNOWN_PEERS_SCHEMA: Final = pl.Schema(
    {
        "hour": pl.Int64,
        "cluster": pl.String,
        "address": pl.String,
        "port": pl.Int32,
        "side": pl.String,
        "partner": pl.String,
        "node": pl.String,
        "reason": pl.String,
        "first_ns": pl.Int64,
        "last_ns": pl.Int64,
        "logs": pl.Int64,
        "bytes": pl.Int64,
        "http_calls": pl.Int64,
    }
)

UNKNOWN_KEYS: Final = tuple(UNKNOWN_PEERS_SCHEMA)[1:8]

# What a connection is between, once its addresses have been resolved. `local_known` is false
# where the local side is Unknown; an instance is null where a side has none (a cluster IP).
PEER_SCHEMA: Final = pl.Schema(
    {
        "local_service": pl.String,
        "local_instance": pl.String,
        "local_known": pl.Boolean,
        "remote_service": pl.String,
        "remote_instance": pl.String,
        "role": pl.String,
        "tls_mode": pl.String,
        "components": pl.Int64,
    }
)

# What messages say of the clocks of nodes, each once: `node` is its name.
# `ahead_messages` have at least one of the `ahead_logs`; `offset_ns` is how far those are ahead of
# their arrival, null without any.
CLOCKS_SCHEMA: Final = pl.Schema(
    {
        "node": pl.String,
        "messages": pl.Int64,
        "ahead_messages": pl.Int64,
        "ahead_logs": pl.Int64,
        "offset_ns": pl.Int64,
    }
)
