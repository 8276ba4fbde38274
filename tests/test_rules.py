"""Single rules for logs, each on a message or two written by hand.

Large captures come upon them by chance, or never.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from batches import as_batch
from comparison import Values, read_views
from strategies import BASE, CLIENT, HOSTILE_DUMP, NS, PROXY, SERVER

from framewalk.engine import Entities, Store, load_plan, partial, read_entities
from framewalk.engine.wire import access_log_pb2 as pb

CALLS = """\
service_calls = from(K8SService.*).count();
relation_calls = from(K8SServiceRelation.*).count();
endpoint_calls = from(K8SEndpoint.*).count();
edge_calls = from(K8SEndpointRelation.*).count();
"""
GUARDED = """\
read_filter = from(K8SService.read.l3.netFilterDuration).filter(type == "read").sum();
write_filter = from(K8SService.write.l3.netFilterDuration).filter(type == "write").sum();
write_resolve = from(K8SService.write.l3.resolveMACDuration).filter(type == "write").sum();
"""


@pytest.fixture(scope="module")
def entities(tmp_path_factory: pytest.TempPathFactory) -> Entities:
    path = tmp_path_factory.mktemp("dump") / "kubectl.yaml"
    path.write_text(HOSTILE_DUMP, encoding="utf-8")
    return read_entities(path)


def sent(role: int = CLIENT, remote_ip: str = "10.96.0.2") -> pb.EBPFAccessLogMessage:
    """Return a message from a pod of frontend.shop, as yet without logs."""
    message = pb.EBPFAccessLogMessage()
    message.node.bootTime.seconds = BASE
    message.connection.role = role
    message.connection.local.kubernetes.serviceName = "frontend.shop"
    message.connection.remote.ip.host = remote_ip
    return message


def add_write(message: pb.EBPFAccessLogMessage, after_s: int = 0) -> None:
    write = message.kernelLogs.add().write
    write.startTime.offset.offset = write.endTime.offset.offset = after_s * NS


def views(
    folder: Path, definitions: str, entities: Entities, message: pb.EBPFAccessLogMessage
) -> Values:
    """Return what the views of a store have after this message."""
    path = folder / "some.oal"
    path.write_text(definitions, encoding="utf-8")
    plan = load_plan([path])
    batch = as_batch([(1, 0, BASE * NS, message.SerializeToString())])
    with Store(":memory:", plan) as store:
        store.commit(None, Path("1"), [], partial([batch], entities, plan))
        return read_views(store)


def test_an_address_has_its_new_owner_from_the_very_moment_on(
    tmp_path: Path, entities: Entities
) -> None:
    """The last log of the batch starts at the moment itself."""
    message = sent(remote_ip="10.0.0.2")
    add_write(message, after_s=59)
    add_write(message, after_s=60)
    assert views(tmp_path, CALLS, entities, message)["service_relation"] == {
        (("frontend.shop", "cart.shop"), BASE): {"relation_calls": 1},
        (("frontend.shop", "payments.pay"), BASE + 60): {"relation_calls": 1},
    }


@pytest.mark.parametrize(
    ("detected_by", "remote"),
    [(pb.ZTUNNEL_OUTBOUND_FUNC, "payments.pay"), (pb.ZTUNNEL_INBOUND_FUNC, "cart.shop")],
)
def test_only_outbound_a_tunnel_tells_who_the_remote_side_is(
    tmp_path: Path, entities: Entities, detected_by: int, remote: str
) -> None:
    message = sent(remote_ip="10.96.0.2")
    message.connection.attachment.zTunnel.real_destination_ip = "10.96.0.7"
    message.connection.attachment.zTunnel.by = detected_by
    add_write(message)
    found = views(tmp_path, CALLS, entities, message)["service_relation"]
    assert [names for names, _ in found] == [("frontend.shop", remote)]


def test_durations_without_a_count_are_zero(tmp_path: Path, entities: Entities) -> None:
    message = sent()
    for count in (0, 1):
        read, write = message.kernelLogs.add().read, message.kernelLogs.add().write
        read.l3Metrics.totalNetFilterDuration = 30 + count
        read.l3Metrics.totalNetFilterCount = count
        write.l3Metrics.totalNetFilterDuration = 50 + count
        write.l3Metrics.totalNetFilterCount = count
        write.l3Metrics.totalResolveMACDuration = 70 + count
        write.l3Metrics.totalResolveMACCount = count
    assert views(tmp_path, GUARDED, entities, message)["service"] == {
        (("frontend.shop",), BASE): {"read_filter": 31, "write_filter": 51, "write_resolve": 71}
    }


@pytest.mark.parametrize(
    ("role", "edge"),
    [
        (CLIENT, None),
        (SERVER, ("cart.shop", "Unknown", "frontend.shop", "GET:/x", "unknown")),
        (PROXY, ("frontend.shop", "Unknown", "cart.shop", "GET:/x", "unknown")),
    ],
)
def test_an_endpoint_is_of_the_side_that_serves(
    tmp_path: Path, entities: Entities, role: int, edge: tuple[str, ...] | None
) -> None:
    """A call is seen at both ends, and its endpoint counts it once."""
    message = sent(role)
    message.protocolLog.http.request.path = "/x"
    found = views(tmp_path, CALLS, entities, message)
    assert found["service"] == {(("frontend.shop",), BASE): {"service_calls": 1}}
    assert len(found["service_relation"]) == 1
    endpoints = {(("frontend.shop", "GET:/x"), BASE): {"endpoint_calls": 1}}
    assert found["endpoint"] == (endpoints if edge else {})
    assert found["endpoint_relation"] == ({(edge, BASE): {"edge_calls": 1}} if edge else {})
