"""The whole way from the rows of a capture to the values of the metrics."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from framewalk.engine.wire import access_log_pb2 as pb
from reference.attributes import (
    KINDS,
    for_connection,
    for_endpoint,
    http_attributes,
    kernel_attributes,
    method_name,
)
from reference.capture import Row
from reference.definitions import Definition
from reference.dump import Directory
from reference.functions import contribution, holds, value_of
from reference.places import UNKNOWN, Place, Stream, boot_ns, endpoint_name, place_of
from reference.serving import serving_ns

LAYER = "K8S_SERVICE"
MINUTE_NS = 60 * 10**9
RESOLUTIONS = {"minute": 1, "hour": 60, "day": 1440}
VIEWS = {
    "K8SService": "service",
    "K8SServiceInstance": "service_instance",
    "K8SEndpoint": "endpoint",
    "K8SServiceRelation": "service_relation",
    "K8SServiceInstanceRelation": "service_instance_relation",
    "K8SEndpointRelation": "endpoint_relation",
}
REASONS = (
    "unknown_operation",
    "no_node",
    "no_boot_time",
    "no_connection",
    "no_local_address",
    "no_remote_address",
    "unknown_role",
    "time_out_of_range",
    "both_unknown",
    "same_service",
)
COMPONENTS = {
    ("http", "Plain"): 49,
    ("http", "TLS"): 129,
    ("tcp", "Plain"): 110,
    ("tcp", "TLS"): 130,
}
TUNNEL, TUNNEL_MTLS = 162, 142

Key = tuple[tuple[str, ...], int]
Attributes = dict[str, Any]


class DroppedLog(NamedTuple):
    """A log that counts nowhere: the message it came in, its position there, and why."""

    stream: int
    seq: int
    position: int
    reason: str


@dataclass
class Result:
    """Values by view, key and metric, and the counts of what was read and dropped."""

    values: dict[str, dict[Key, dict[str, Any]]] = field(
        default_factory=lambda: {view: {} for view in VIEWS.values()}
    )
    dropped: Counter[str] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    logs: int = 0
    dropped_logs: list[DroppedLog] = field(default_factory=list)


class Entity(NamedTuple):
    """A log as one scope sees it."""

    scope: str
    names: tuple[str, ...]
    attributes: Attributes


class Found(NamedTuple):
    """A log in a message; `operation` is None where it says nothing."""

    kind: str
    operation: Any


def analyse(
    rows: Iterable[tuple[int, int, int, bytes]],
    dump: Directory,
    definitions: Sequence[Definition],
    *,
    resolution: str = "minute",
    thresholds: Mapping[str, int] | None = None,
) -> Result:
    """Return the values that the definitions have over the rows of a capture."""
    result = Result()
    minutes = RESOLUTIONS[resolution]
    by_type = _by_type(definitions)
    named = {definition.name: definition for definition in definitions}
    given: dict[tuple[str, Key], dict[str, list[Any]]] = defaultdict(dict)
    for event_ns, entity in _entities(rows, dump, result):
        bucket = event_ns // (minutes * MINUTE_NS) * minutes * 60
        place = given[entity.scope, (entity.names, bucket)]
        for definition in by_type(entity):
            if all(holds(condition, entity.attributes) for condition in definition.filters):
                one = contribution(definition, entity.attributes, thresholds or {})
                if one is not None:
                    place.setdefault(definition.name, []).append(one)
    for (scope, key), contributions in given.items():
        values = {
            name: value_of(named[name], all_, minutes) for name, all_ in contributions.items()
        }
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            result.values[VIEWS[scope]][key] = known
    return result


def drop_counts(result: Result) -> list[tuple[str, int]]:
    """Return how many logs were dropped for which reason, every reason in its order."""
    return [(reason, result.dropped[reason]) for reason in REASONS]


def _entities(
    rows: Iterable[tuple[int, int, int, bytes]], dump: Directory, result: Result
) -> Iterator[tuple[int, Entity]]:
    streams: dict[int, Stream] = defaultdict(Stream)
    for row in map(Row._make, rows):
        result.messages += 1
        message = _parse(row.message)
        if message is None:
            result.quality["undecodable_message"] += 1
            continue
        stream = streams[row.stream]
        stream.node = message.node if message.HasField("node") else stream.node
        stream.connection = (
            message.connection if message.HasField("connection") else stream.connection
        )
        for position, log in enumerate(_logs_of(message)):
            result.logs += 1
            _count_bad_values(log, result.quality)
            place = place_of(log.operation, stream, dump, row.received_at_ns)
            if isinstance(place, str):
                result.dropped[place] += 1
                result.dropped_logs.append(DroppedLog(row.stream, row.seq, position, place))
                continue
            by_server = place.detect_point == "SERVER"
            served_ns = serving_ns(message, boot_ns(stream.node), by_server=by_server)
            for entity in _entities_of(log, place, stream, served_ns):
                yield place.event_ns, entity


def _parse(message: bytes) -> pb.EBPFAccessLogMessage | None:
    parsed = pb.EBPFAccessLogMessage()
    try:
        parsed.ParseFromString(message)
    except DecodeError:
        return None
    return parsed


def _logs_of(message: pb.EBPFAccessLogMessage) -> Iterator[Found]:
    for log in message.kernelLogs:
        kind = log.WhichOneof("operation")
        yield Found(kind, getattr(log, kind)) if kind in KINDS else Found("", None)
    if message.HasField("protocolLog"):
        has_http = message.protocolLog.HasField("http")
        yield Found("http", message.protocolLog.http) if has_http else Found("", None)


def _count_bad_values(log: Found, quality: Counter[str]) -> None:
    """Bad values count whether or not the log they are in does."""
    if log.kind == "http":
        http_attributes(log.operation, quality)
    elif log.kind:
        kernel_attributes(log.kind, log.operation, {}, quality)


def _entities_of(
    log: Found, place: Place, stream: Stream, served_ns: int | None
) -> Iterator[Entity]:
    quality: Counter[str] = Counter()
    common = {"layer": LAYER, "detectPoint": place.detect_point}
    if log.kind != "http":
        devices = {device.index: device.name for device in stream.node.netInterfaces}
        seen = kernel_attributes(log.kind, log.operation, devices, quality)
        yield from _connection_entities({**common, **seen}, place, stream)
        return
    http = {**http_attributes(log.operation, quality), "http.serving.duration": served_ns}
    yield from _connection_entities({**common, **for_connection(http)}, place, stream)
    if place.detect_point != "CLIENT":
        name = endpoint_name(method_name(log.operation), log.operation.request.path)
        served = {"layer": LAYER, "detectPoint": "SERVER", **for_endpoint(http)}
        yield from _endpoint_entities(served, place, name)


def _connection_entities(seen: Attributes, place: Place, stream: Stream) -> Iterator[Entity]:
    local, source, dest = place.local, place.source, place.dest
    if local.resolved:
        names = {"name": local.service, "serviceName": local.service}
        yield Entity("K8SService", (local.service,), {**seen, **names})
    if local.resolved and local.instance is not None:
        names = {"serviceName": local.service, "serviceInstanceName": local.instance}
        yield Entity("K8SServiceInstance", (local.service, local.instance), {**seen, **names})
    names = {"sourceServiceName": source.service, "destServiceName": dest.service}
    yield Entity(
        "K8SServiceRelation",
        (source.service, dest.service),
        {**seen, **names, **_link(stream.connection)},
    )
    if source.instance is not None and dest.instance is not None:
        names |= {
            "sourceServiceInstanceName": source.instance,
            "destServiceInstanceName": dest.instance,
        }
        yield Entity(
            "K8SServiceInstanceRelation",
            (source.service, source.instance, dest.service, dest.instance),
            {**seen, **names},
        )


def _endpoint_entities(seen: Attributes, place: Place, endpoint: str) -> Iterator[Entity]:
    local, source, dest = place.local, place.source, place.dest
    if local.resolved:
        names = {"serviceName": local.service, "endpointName": endpoint}
        yield Entity("K8SEndpoint", (local.service, endpoint), {**seen, **names})
    names = {
        "sourceServiceName": source.service,
        "sourceEndpointName": UNKNOWN,
        "destServiceName": dest.service,
        "destEndpointName": endpoint,
    }
    key = (source.service, UNKNOWN, dest.service, endpoint, "unknown")
    yield Entity("K8SEndpointRelation", key, {**seen, **names})


def _link(connection: pb.AccessLogConnection) -> Attributes:
    tls = "TLS" if connection.tlsMode == pb.TLS else "Plain"
    protocol = "http" if connection.protocol in (pb.HTTP_1, pb.HTTP_2) else "tcp"
    components: tuple[int, ...] = (COMPONENTS[protocol, tls],)
    if connection.attachment.HasField("zTunnel"):
        secured = connection.attachment.zTunnel.security_policy == pb.MTLS
        components = (TUNNEL_MTLS, TUNNEL) if secured else (TUNNEL,)
    return {"tlsMode": tls, "componentIds": components}


def _by_type(definitions: Sequence[Definition]) -> Callable[[Entity], list[Definition]]:
    """Return the definitions worth trying on an entity: the others ask for another `type`."""
    known: dict[tuple[str, str], list[Definition]] = {}

    def worth_trying(entity: Entity) -> list[Definition]:
        wanted = entity.scope, entity.attributes["type"]
        if wanted not in known:
            known[wanted] = [d for d in definitions if _may_match(d, *wanted)]
        return known[wanted]

    return worth_trying


def _may_match(definition: Definition, scope: str, kind: str) -> bool:
    asked = (c for c in definition.filters if c.attribute == "type")
    return definition.scope == scope and all(holds(c, {"type": kind}) for c in asked)
