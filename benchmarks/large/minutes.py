"""The messages of a large cluster, a minute at a time, as Rover sends them.

Every pair of pods makes one request a minute. Each of its two sides is a message of three logs: the
request, and what was written and read for it. A node flushes every five seconds, each flush is a
stream; its first message has the node, every message has its connection.

Times are since a node's boot, so the same bytes are another minute when the boot is a minute later.
That is how minutes are repeated: some are made, with values that all differ, and go out in turn.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from framewalk.engine.captures import CAPTURE_SCHEMA
from framewalk.engine.wire import access_log_pb2 as wire
from large.cluster import CALLEES, ENDPOINTS, PATH_BYTES, PODS, PORT, Cluster, Pairs, pairs_of
from large.template import Hole, Template, fixed_field, nested, number_field, varint, varints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from large.cluster import Pod, Service
    from large.template import Part

S: Final = 10**9
MINUTE_NS: Final = 60 * S
FLUSH_NS: Final = 5 * S
LOGS_PER_MESSAGE: Final = 3
# 2026-11-02T09:00:00Z
START_NS: Final = 1_793_610_000 * S

_FLUSHES: Final = MINUTE_NS // FLUSH_NS
# Offsets take eight bytes as varints, as those of a node that has been up for weeks do.
_UPTIME_NS: Final = 20 * 86_400 * S
_BOOT_BYTES: Final = 5
_CLIENT, _SERVER = 0, 1
_HTTP_1: Final = 1
_SEND_STEP_NS: Final = 200_000
_BATCH_ROWS: Final = 8_192
# Requests end within their minute.
_FIRST_NS: Final = S // 10
_LAST_NS: Final = 57 * S
_LONGEST_NS: Final = 2 * S
_STATUSES: Final = (200, 404, 500, 503)
_SHARES: Final = (0.975, 0.01, 0.01, 0.005)


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of messages, in the order they come.

    `content` holds all messages, message i from `offsets[i]` on. Stream k begins at message
    `firsts[k]`; its node's boot time, in seconds, is 5 bytes at `boot_places[k]`. `received_ns` is
    since the minute's begin.
    """

    content: np.ndarray
    offsets: np.ndarray
    stream: np.ndarray
    seq: np.ndarray
    received_ns: np.ndarray
    firsts: np.ndarray
    boot_places: np.ndarray
    boot_s: np.ndarray

    @property
    def messages(self) -> int:
        """Count the messages."""
        return len(self.stream)

    @property
    def streams(self) -> int:
        """Count the streams."""
        return len(self.firsts)

    def move_to(self, minute: int) -> None:
        """Make it that minute of the capture, counted from 0."""
        places = self.boot_places[:, None] + np.arange(_BOOT_BYTES)
        self.content[places] = varints(self.boot_s + 60 * minute, _BOOT_BYTES)

    def batches(self, minute: int, start_ns: int = START_NS) -> Iterator[pa.RecordBatch]:
        """Yield it as record batches of CAPTURE_SCHEMA; they are not to be kept."""
        self.move_to(minute)
        message = pa.Array.from_buffers(
            pa.binary(),
            self.messages,
            [None, pa.py_buffer(self.offsets), pa.py_buffer(self.content)],
        )
        received_ns = self.received_ns + start_ns + minute * MINUTE_NS
        columns = (self.stream + np.uint64(minute * self.streams), self.seq, received_ns)
        arrays = [
            pa.array(column).cast(field.type)
            for column, field in zip(columns, list(CAPTURE_SCHEMA)[:3], strict=True)
        ]
        whole = pa.RecordBatch.from_arrays([*arrays, message], schema=CAPTURE_SCHEMA)
        for begin in range(0, self.messages, _BATCH_ROWS):
            yield whole.slice(begin, _BATCH_ROWS)

    def stream_messages(self, stream: int) -> list[bytes]:
        """Return the messages of one stream."""
        begin = int(self.firsts[stream])
        end = int(self.firsts[stream + 1]) if stream + 1 < self.streams else self.messages
        ends = self.offsets[begin : end + 1].tolist()
        content = self.content[ends[0] : ends[-1]].tobytes()
        return [content[one - ends[0] : other - ends[0]] for one, other in itertools.pairwise(ends)]


@dataclass(frozen=True, slots=True)
class _NodeField:
    """What a node says of itself; its boot time is after so many bytes, of every node."""

    content: bytes
    before_bytes: int


class Minutes:
    """Makes minutes; those of one number have the same values in every run."""

    def __init__(self, cluster: Cluster, start_ns: int = START_NS) -> None:
        self.cluster = cluster
        self._start_ns = start_ns
        self._pods = cluster.pods
        self._pairs: Pairs = pairs_of(cluster)
        # The caller's sides of all pairs, then the callee's.
        node = np.array([pod.node for pod in self._pods])
        self._node = node[np.concatenate([self._pairs.caller, self._pairs.callee])]
        self._boot_ns = start_ns - _UPTIME_NS - np.arange(cluster.nodes) * 7_919 * S
        self._phase_ns = np.arange(cluster.nodes) * FLUSH_NS // cluster.nodes

    @property
    def logs(self) -> int:
        """Count the logs of one minute."""
        return 2 * LOGS_PER_MESSAGE * len(self._pairs)

    def make(self, number: int) -> Minute:
        """Make the minute of a number, as the first of a capture."""
        bodies, end_ns = self._bodies(number)
        return self._in_order(bodies, end_ns)

    def _in_order(self, bodies: np.ndarray, end_ns: np.ndarray) -> Minute:
        flush = end_ns // FLUSH_NS
        order = np.lexsort((np.arange(len(flush)), self._node, flush))
        node, flush = self._node[order], flush[order]
        begins = np.flatnonzero(np.diff(flush * self.cluster.nodes + node, prepend=-1))
        stream = np.zeros(len(order), np.uint64)
        stream[begins[1:]] = 1
        stream = stream.cumsum(dtype=np.uint64)
        seq = np.arange(len(order)) - begins[stream.astype(np.int64)]
        content, offsets = self._joined(bodies, order, begins, node[begins])
        sent_ns = (flush + 1) * FLUSH_NS + self._phase_ns[node]
        return Minute(
            content=content,
            offsets=offsets,
            stream=stream,
            seq=seq.astype(np.uint32),
            received_ns=sent_ns + seq * _SEND_STEP_NS,
            firsts=begins,
            boot_places=offsets[begins] + self._node_fields[0].before_bytes,
            boot_s=self._boot_ns[node[begins]] // S,
        )

    def _joined(
        self, bodies: np.ndarray, order: np.ndarray, begins: np.ndarray, nodes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return all messages one after the other, and where each begins."""
        size_bytes = bodies.shape[1]
        fixed = pa.Array.from_buffers(
            pa.binary(size_bytes), len(order), [None, pa.py_buffer(bodies[order])]
        )
        heads = np.full(len(order), self.cluster.nodes)
        heads[begins] = nodes
        fields = [field.content for field in self._node_fields]
        node = pa.array([*fields, b""], pa.binary()).take(pa.array(heads))
        connection = self._connections.take(pa.array(order))
        joined = pc.binary_join_element_wise(node, connection, fixed.cast(pa.binary()), b"")
        _, offsets, content = joined.buffers()
        return (
            np.frombuffer(content, np.uint8).copy(),
            np.frombuffer(offsets, np.int32)[: len(order) + 1].copy(),
        )

    @cached_property
    def _node_fields(self) -> list[_NodeField]:
        return [self._node_field(node) for node in range(self.cluster.nodes)]

    def _node_field(self, node: int) -> _NodeField:
        info = wire.EBPFAccessLogNodeInfo(
            name=self.cluster.node_name(node),
            netInterfaces=[
                wire.EBPFAccessLogNodeNetInterface(index=1, mtu=65_536, name="lo"),
                wire.EBPFAccessLogNodeNetInterface(index=2, mtu=1_500, name="eth0"),
            ],
        )
        boot_s = varint(int(self._boot_ns[node]) // S)
        rest = info.SerializeToString()
        whole = b"".join(nested(1, *nested(3, b"\x08" + boot_s), rest))
        return _NodeField(whole, whole.index(boot_s))

    @cached_property
    def _connections(self) -> pa.Array:
        pairs = self._pairs
        columns = (pairs.caller.tolist(), pairs.callee.tolist(), pairs.caller_port.tolist())
        rows = list(zip(*columns, strict=True))
        of_callers = (self._connection(a, port, b, PORT, _CLIENT) for a, b, port in rows)
        of_callees = (self._connection(b, PORT, a, port, _SERVER) for a, b, port in rows)
        return pa.array([*of_callers, *of_callees], pa.binary())

    def _connection(self, local: int, local_port: int, remote: int, port: int, role: int) -> bytes:
        own, other = self._pods[local], self._pods[remote]
        connection = wire.AccessLogConnection(
            local=self._address(local, own, local_port),
            # As Rover has it: a pod of the same node is named, others are addresses.
            remote=self._address(remote, other, port)
            if own.node == other.node
            else wire.ConnectionAddress(ip=wire.IPAddress(host=other.address, port=port)),
            role=role,  # type: ignore[arg-type]
            protocol=_HTTP_1,  # type: ignore[arg-type]
        )
        return wire.EBPFAccessLogMessage(connection=connection).SerializeToString()

    def _address(self, number: int, pod: Pod, port: int) -> wire.ConnectionAddress:
        service: Service = self.cluster.services[number // PODS]
        return wire.ConnectionAddress(
            kubernetes=wire.KubernetesProcessAddress(
                serviceName=service.full_name,
                podName=pod.name,
                containerName=service.name,
                processName="server",
                port=port,
            )
        )

    @cached_property
    def _paths(self) -> np.ndarray:
        """Return the bytes of the paths of all services' endpoints."""
        paths = "".join(path for service in self.cluster.services for path in service.paths)
        return np.frombuffer(paths.encode("ascii"), np.uint8).reshape(-1, PATH_BYTES)

    def _bodies(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what follows the connection in each message, and when its request ended."""
        draws = np.random.default_rng([len(self._pods), number])
        count = len(self._pairs)
        callee = self._pairs.callee
        # A service asks five endpoints of each callee, its pods in turn: all of them every minute.
        of_callee = np.arange(count) // PODS % CALLEES * PODS
        endpoint = (of_callee + (np.arange(count) + number) % PODS) % ENDPOINTS
        median_ns = np.geomspace(300_000, 80_000_000, ENDPOINTS)[(endpoint + callee) % ENDPOINTS]
        served_ns = draws.lognormal(np.log(median_ns), 0.6).clip(20_000, _LONGEST_NS)
        network_ns = draws.lognormal(np.log(250_000), 0.5, count).clip(20_000, S // 2)
        start_ns = draws.integers(_FIRST_NS, _LAST_NS, count)
        both: dict[str, np.ndarray] = {
            "path": self._paths[callee // PODS * ENDPOINTS + endpoint],
            "method": (endpoint % 4).astype(np.int64),
            "status": draws.choice(_STATUSES, count, p=_SHARES),
            "request_head": _sizes(draws, count, 420),
            "request_body": _sizes(draws, count, 900),
            "response_head": _sizes(draws, count, 210),
            "response_body": _sizes(draws, count, 4_000),
        }
        own = (
            {"start_ns": start_ns, "end_ns": start_ns + (served_ns + network_ns).astype(np.int64)},
            {
                "start_ns": start_ns + (network_ns / 2).astype(np.int64),
                "end_ns": start_ns + (served_ns + network_ns / 2).astype(np.int64),
            },
        )
        rows = []
        for side, (times, node) in enumerate(zip(own, np.split(self._node, 2), strict=True)):
            boot_ns = self._boot_ns[node] - self._start_ns
            columns = both | _kernel(draws, count, both, side) | _offsets(times, boot_ns, side)
            rows.append(_TEMPLATES[side].fill(count, columns))
        return np.concatenate(rows), np.concatenate([times["end_ns"] for times in own])


def _sizes(draws: np.random.Generator, count: int, median: int) -> np.ndarray:
    return draws.lognormal(np.log(median), 0.7, count).clip(1, 2_000_000).astype(np.int64)


def _offsets(times: dict[str, np.ndarray], boot_ns: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Return when the request and what was written and read for it began and ended."""
    start_ns, end_ns = (times[name] - boot_ns for name in ("start_ns", "end_ns"))
    first_ns = start_ns + (end_ns - start_ns) // 20
    last_ns = end_ns - (end_ns - start_ns) // 10
    first, second = ("write", "read") if side == _CLIENT else ("read", "write")
    return {
        "start": start_ns,
        "end": end_ns,
        f"{first}_start": start_ns,
        f"{first}_end": first_ns,
        f"{second}_start": last_ns,
        f"{second}_end": end_ns,
    }


def _kernel(
    draws: np.random.Generator, count: int, both: dict[str, np.ndarray], side: int
) -> dict[str, np.ndarray]:
    """Return what the kernel says of the call that wrote and of the one that read."""
    request = both["request_head"] + both["request_body"]
    response = both["response_head"] + both["response_body"]
    written, read = (request, response) if side == _CLIENT else (response, request)
    durations = {
        name: draws.lognormal(np.log(median_ns), 0.8, count).clip(1, 2_000_000).astype(np.int64)
        for name, median_ns in _DURATIONS_NS.items()
    }
    return durations | {
        "write_size": written,
        "read_size": read,
        "write_packages": 1 + written // 1_448,
        "read_packages": 1 + read // 1_448,
        "retransmitted": (draws.random(count) < 0.01).astype(np.int64),
        "macs": (draws.random(count) < 0.02).astype(np.int64),
        "filters": draws.integers(0, 6, count),
    }


_DURATIONS_NS: Final = {
    "write_l4_ns": 21_000,
    "write_l3_ns": 14_000,
    "write_local_ns": 4_000,
    "write_output_ns": 9_000,
    "write_filter_ns": 2_500,
    "write_l2_ns": 6_000,
    "write_ready_ns": 1_500,
    "write_device_ns": 3_500,
    "read_l4_ns": 11_000,
    "read_l3_ns": 7_000,
    "read_local_ns": 2_000,
    "read_filter_ns": 900,
    "read_to_queue_ns": 5_000,
    "read_from_queue_ns": 8_000,
}


def _time(field: int, name: str) -> list[Part]:
    return nested(field, *nested(1, *number_field(1, Hole(name, 8))))


def _times(name: str) -> list[Part]:
    prefix = f"{name}_" if name else ""
    return [*_time(1, f"{prefix}start"), *_time(2, f"{prefix}end")]


def _hole(field: int, name: str, size_bytes: int) -> list[Part]:
    return number_field(field, Hole(name, size_bytes))


def _write() -> list[Part]:
    l4 = nested(
        4,
        *_hole(1, "write_l4_ns", 3),
        *_hole(2, "write_packages", 2),
        *_hole(3, "retransmitted", 1),
        *_hole(5, "write_size", 4),
    )
    l3 = nested(
        5,
        *_hole(1, "write_l3_ns", 3),
        *_hole(2, "write_local_ns", 3),
        *_hole(3, "write_output_ns", 3),
        *_hole(5, "macs", 1),
        *_hole(6, "macs", 1),
        *_hole(7, "filters", 1),
        *_hole(8, "write_filter_ns", 3),
    )
    l2 = nested(
        6,
        *_hole(1, "write_l2_ns", 3),
        *fixed_field(2, 2),
        *_hole(3, "write_packages", 2),
        *_hole(4, "write_ready_ns", 3),
        *_hole(5, "write_device_ns", 3),
    )
    return nested(3, *nested(5, *_times("write"), *fixed_field(3, 3), *l4, *l3, *l2))


def _read() -> list[Part]:
    l2 = nested(
        4,
        *fixed_field(1, 2),
        *_hole(2, "read_packages", 2),
        *_hole(3, "read_size", 4),
        *_hole(4, "read_to_queue_ns", 3),
        *_hole(5, "read_from_queue_ns", 3),
    )
    l3 = nested(
        5,
        *_hole(1, "read_l3_ns", 3),
        *_hole(3, "read_local_ns", 3),
        *_hole(5, "read_filter_ns", 3),
    )
    l4 = nested(6, *_hole(1, "read_l4_ns", 3))
    return nested(3, *nested(4, *_times("read"), *fixed_field(3, 3), *l2, *l3, *l4))


def _http() -> list[Part]:
    request = nested(
        4,
        *_hole(1, "method", 1),
        *nested(2, Hole("path", PATH_BYTES)),
        *_hole(3, "request_head", 4),
        *_hole(4, "request_body", 4),
        *nested(6, b"service.example"),
    )
    response = nested(
        5, *_hole(1, "status", 2), *_hole(3, "response_head", 4), *_hole(4, "response_body", 4)
    )
    return nested(4, *nested(1, *_times(""), *request, *response))


_TEMPLATES: Final = (
    Template([*_write(), *_read(), *_http()]),
    Template([*_read(), *_write(), *_http()]),
)
