"""What has no name can be asked for: unknown_peers, and how many addresses are known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from batches import as_batch

from framewalk.engine import (
    CaptureReader,
    CaptureWriter,
    Entities,
    Plan,
    Store,
    partial,
    read_entities,
    replay,
)
from framewalk.engine.caps import OTHERS, Caps
from framewalk.engine.wire import access_log_pb2 as pb

HOUR_S = 3600
BOOT_S = 1_700_000_000 - 1_700_000_000 % HOUR_S
RECEIVED_NS = (BOOT_S + 10**6) * 10**9
SERVER = 1
BYTES = {"read": ("l2Metrics", "totalPackageSize"), "write": ("l4Metrics", "totalPackageSize")}


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


def message(remote_ip: str, *, role: int = 0, port: int = 443, hour: int = 0) -> Any:  # noqa: ANN401
    """A pod of shop and an address, and a write of 100 bytes."""
    made = pb.EBPFAccessLogMessage()
    made.node.name = "node-1"
    made.node.bootTime.seconds = BOOT_S
    made.connection.role = role
    made.connection.local.kubernetes.serviceName = "shop.default"
    made.connection.local.kubernetes.podName = "shop-0"
    made.connection.remote.ip.host = remote_ip
    made.connection.remote.ip.port = port
    write = made.kernelLogs.add().write
    write.startTime.offset.offset = write.endTime.offset.offset = hour * HOUR_S * 10**9
    write.l4Metrics.totalPackageSize = 100
    return made


def as_rows(messages: list[Any]) -> list[tuple[int, int, int, bytes]]:
    return [(1, seq, RECEIVED_NS, one.SerializeToString()) for seq, one in enumerate(messages)]


def expected(path: Path, entities: Entities) -> tuple[dict[Any, list[int]], dict[str, int]]:
    """Go through all logs of a capture, one by one; only the look-up is the engine's."""
    logs = list(all_logs(path))
    asked = [
        {
            "ip": side.ip.host,
            "time_ns": time_ns,
            "cluster": node.clusterName,
            "port": side.ip.port,
            "is_called": is_called(connection, at),
        }
        for node, connection, _, _, time_ns in logs
        for at, side in enumerate((connection.local, connection.remote))
    ]
    names = entities.lookup(pl.DataFrame(asked)).rows(named=True)
    found: dict[Any, list[int]] = defaultdict(lambda: [2**63, 0, 0, 0, 0])
    addresses = {"known": 0, "unknown": 0}
    for number, (node, connection, operation, log, time_ns) in enumerate(logs):
        sides = (connection.local, connection.remote)
        named = [name_of(side, node, names[2 * number + at]) for at, side in enumerate(sides)]
        for at, side in enumerate(sides):
            is_ip = side.HasField("ip")
            if is_ip:
                addresses["known" if named[at][0] else "unknown"] += 1
            if not named[at][0]:
                key = (
                    time_ns // 10**9 // HOUR_S,
                    node.clusterName,
                    side.ip.host if is_ip else side.kubernetes.podName,
                    side.ip.port if is_called(connection, at) and is_ip else 0,
                    "server" if is_called(connection, at) else "client",
                    named[1 - at][0] or "Unknown",
                    node.name,
                    named[at][1],
                )
                count(found[key], operation, log, time_ns)
    return dict(found), addresses


def all_logs(path: Path) -> Iterator[tuple[Any, Any, str, Any, int]]:
    """Yield node, connection, operation, log and time."""
    nodes: dict[int, Any] = {}
    connections: dict[int, Any] = {}
    with CaptureReader(path) as reader:
        batches = [batch.messages.select(["stream", "message"]) for batch in reader]
    for row in (row for batch in batches for row in batch.to_pylist()):
        one = pb.EBPFAccessLogMessage.FromString(row["message"])
        if one.HasField("node"):
            nodes[row["stream"]] = one.node
        if one.HasField("connection"):
            connections[row["stream"]] = without_ztunnel(one.connection)
        node, connection = nodes[row["stream"]], connections[row["stream"]]
        boot_ns = node.bootTime.seconds * 10**9 + node.bootTime.nanos
        for operation, log in logs_of(one):
            yield node, connection, operation, log, boot_ns + log.startTime.offset.offset


def without_ztunnel(connection: Any) -> Any:  # noqa: ANN401
    """Have the address that was called where a tunnel has its own in between."""
    tunnel = connection.attachment.zTunnel
    if connection.remote.HasField("ip") and tunnel.real_destination_ip and tunnel.by == 0:
        connection.remote.ip.host = tunnel.real_destination_ip
    return connection


def is_called(connection: Any, side: int) -> bool:  # noqa: ANN401
    return (connection.role == SERVER) == (side == 0)


def logs_of(one: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for kernel in one.kernelLogs:
        operation = kernel.WhichOneof("operation")
        yield operation, getattr(kernel, operation)
    if one.HasField("protocolLog"):
        yield "http", one.protocolLog.http


def name_of(side: Any, node: Any, found: Any) -> tuple[str | None, str | None]:  # noqa: ANN401
    if side.HasField("kubernetes"):
        return side.kubernetes.serviceName or None, "pod without a Service"
    prefix = f"{node.clusterName}::" if node.clusterName else ""
    service = None if found["service"] is None else prefix + found["service"]
    return service, found["reason"]


def count(into: list[int], operation: str, log: Any, time_ns: int) -> None:  # noqa: ANN401
    into[0] = min(into[0], time_ns)
    into[1] = max(into[1], time_ns)
    into[2] += 1
    if operation in BYTES:
        layer, name = BYTES[operation]
        into[3] += getattr(getattr(log, layer), name)
    into[4] += operation == "http"


def by_key(unknown: pl.DataFrame) -> dict[Any, list[int]]:
    return {row[:8]: list(row[8:]) for row in unknown.rows()}


def test_every_log_of_what_has_no_name_is_there(scenario: Path, plan: Plan) -> None:
    (path,) = scenario.glob("*.capture.arrows")
    entities = read_entities(scenario)
    with CaptureReader(path) as reader:
        batches = [batch.messages for batch in reader]
    states = partial(batches, entities, plan)
    want, addresses = expected(path, entities)
    assert by_key(states.unknown) == want
    assert states.counters.addresses == {name: one for name, one in addresses.items() if one}
    small = [batch[at : at + 777] for batch in batches for at in range(0, batch.num_rows, 777)]
    assert by_key(partial(small, entities, plan).unknown) == want


def test_both_sides_unknown_make_no_relation(plan: Plan) -> None:
    made = message("203.0.113.7")
    made.connection.local.ip.host = "198.51.100.4"
    states = partial([as_batch(as_rows([made]))], Entities.empty(), plan)
    assert states.counters.dropped == {"both_unknown": 1}
    assert states.counters.addresses == {"unknown": 2}
    assert states.scopes["service_relation"].scalars.is_empty()
    assert sorted(states.unknown["address"]) == ["198.51.100.4", "203.0.113.7"]
    assert set(states.unknown["partner"]) == {"Unknown"}


@pytest.mark.parametrize("commit_logs", [1, 10**6])
def test_the_store_adds_up_by_hour(tmp_path: Path, plan: Plan, commit_logs: int) -> None:
    """And tells so many addresses of an hour apart; the rest is one, whatever it is."""
    few = [message("203.0.113.7", hour=hour) for hour in (0, 0, 1)]
    many = [message(f"203.0.113.{number % 100}", port=80, hour=2) for number in range(300)]
    path = tmp_path / "some.capture.arrows"
    with CaptureWriter(path) as writer:
        for start in range(0, 303, 50):
            writer.write(as_batch(as_rows([*few, *many])[start : start + 50]))
    with Store(":memory:", plan) as store:
        caps = Caps(unknown_peers_per_hour=10)
        replay([path], Entities.empty(), store, commit_logs=commit_logs, caps=caps)
        sql = (
            f"SELECT (epoch(time_bucket)::BIGINT - {BOOT_S}) // 3600, address, port, side, "
            "partner, node, reason, logs, bytes, http_calls FROM unknown_peers ORDER BY ALL"
        )
        rows = store.query(sql).fetchall()
        store.compact(10**9)
        assert store.query(sql).fetchall() == rows
        ((stored,),) = store.query("SELECT count(*) FROM internal.unknown_peers").fetchall()
        assert stored == len(rows)
    known = ("server", "shop.default", "node-1", "outside the cluster")
    assert rows[:2] == [
        (0, "203.0.113.7", 443, *known, 2, 200, 0),
        (1, "203.0.113.7", 443, *known, 1, 100, 0),
    ]
    assert len(rows) == 2 + 11
    assert {row[7:] for row in rows[2:12]} == {(3, 300, 0)}
    assert rows[12] == (2, OTHERS, 0, "", "", "", "", 270, 27_000, 0)


def test_those_with_the_most_bytes_of_an_hour_are_told_apart(tmp_path: Path, plan: Plan) -> None:
    """Whenever they come: the last ones have the most here."""
    addresses = [f"203.0.{number // 250}.{number % 250}" for number in range(2_010)]
    sent = [message(one, port=80) for one in addresses]
    path = tmp_path / "some.capture.arrows"
    with CaptureWriter(path) as writer:
        writer.write(as_batch(as_rows([*sent, *sent[-2_000:]])))
    with Store(":memory:", plan) as store:
        replay([path], Entities.empty(), store)
        sql = "SELECT address, port, logs, bytes FROM unknown_peers"
        rows = set(store.query(sql).fetchall())
    assert rows == {(one, 80, 2, 200) for one in addresses[10:]} | {(OTHERS, 0, 10, 1_000)}
