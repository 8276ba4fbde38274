"""The scopes of the definition language and their attributes (analysis.md, section 3).

This is data: the binder resolves names against it, the reference page is made from it. An
attribute names a column of a log frame (schemas.OPERATION_LEAVES and what flatten derives),
a column of the peers of a connection, or is a constant of the operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.schemas import (
    HTTP_METHODS,
    OPERATIONS,
    READ_SYSCALLS,
    TLS_MODES,
    WRITE_SYSCALLS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class ValueType(StrEnum):
    """What values an attribute has."""

    LONG = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    DETECT_POINT = "DetectPoint"
    COMPONENTS = "list of numbers"


class Level(StrEnum):
    """Where an attribute's column is: on each log, or on the peers of its connection."""

    LOG = "log"
    PEER = "peer"


DETECT_POINTS: Final = ("CLIENT", "SERVER", "PROXY")
ENUMERATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {ValueType.DETECT_POINT: DETECT_POINTS}
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column by its name, and which frame it is in; `members` are all its values if few.

    A log in which a `nullable` one is null does not contribute to what is made of its values.
    """

    name: str
    level: Level
    type: ValueType
    members: tuple[str, ...] = ()
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a scope.

    `columns` maps each operation whose logs have the attribute to where its value is: a
    column, or the value itself where it is the same for all logs of that operation.
    """

    path: str
    type: ValueType
    columns: Mapping[str, Column | str]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """One kind of entity: which logs make it and what identifies it.

    `view` is the view's name without its resolution; `keys` maps the names of an entity
    (store.md) to the column, or the constant, that holds it. Only logs of `roles` count, with
    a known local side if `needs_local`, and with the peer columns in `needs` not null.
    """

    name: str
    view: str
    keys: Mapping[str, Column | str]
    operations: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    roles: tuple[str, ...]
    needs_local: bool
    needs: tuple[str, ...] = ()


_TYPE_OF_OPERATION: Final = {operation: operation for operation in OPERATIONS} | {
    "http": "protocol"
}


# What a number that is not in its enum is called.
_UNKNOWN_MEMBER: Final = "UNKNOWN"
_MEMBERS: Final = {
    ("read", "syscall_name"): (*READ_SYSCALLS, _UNKNOWN_MEMBER),
    ("write", "syscall_name"): (*WRITE_SYSCALLS, _UNKNOWN_MEMBER),
    ("http", "method_name"): (*HTTP_METHODS, _UNKNOWN_MEMBER),
}


_NULLABLE: Final = ("serving_duration_ns",)


def _peer(
    name: str, value_type: ValueType = ValueType.STRING, members: tuple[str, ...] = ()
) -> Column:
    return Column(name, Level.PEER, value_type, members)


def _log(name: str, value_type: ValueType = ValueType.STRING, operation: str = "http") -> Column:
    members = _MEMBERS.get((operation, name), ())
    return Column(name, Level.LOG, value_type, members, name in _NULLABLE)


def _everywhere(
    path: str, column: Column | str, operations: tuple[str, ...], value_type: ValueType
) -> Attribute:
    return Attribute(path, value_type, dict.fromkeys(operations, column))


_L, _B, _S = ValueType.LONG, ValueType.BOOLEAN, ValueType.STRING
_CONNECTION_LOG_ATTRIBUTES: Final = {
    "connect.duration": ("connect", "duration_ns", _L, "ns"),
    "connect.success": ("connect", "success", _B, ""),
    "accept.duration": ("accept", "duration_ns", _L, "ns"),
    "close.duration": ("close", "duration_ns", _L, "ns"),
    "close.success": ("close", "success", _B, ""),
    "write.duration": ("write", "duration_ns", _L, "ns"),
    "write.syscall": ("write", "syscall_name", _S, ""),
    "write.l4.duration": ("write", "l4_duration_ns", _L, "ns"),
    "write.l4.transmitPackageCount": ("write", "l4_transmit_package_count", _L, "count"),
    "write.l4.retransmitPackageCount": ("write", "l4_retransmit_package_count", _L, "count"),
    "write.l4.totalPackageSize": ("write", "l4_total_package_size_bytes", _L, "bytes"),
    "write.l3.duration": ("write", "l3_duration_ns", _L, "ns"),
    "write.l3.localDuration": ("write", "l3_local_duration_ns", _L, "ns"),
    "write.l3.outputDuration": ("write", "l3_output_duration_ns", _L, "ns"),
    "write.l3.resolveMACCount": ("write", "l3_resolve_mac_count", _L, "count"),
    "write.l3.resolveMACDuration": ("write", "l3_resolve_mac_duration_ns", _L, "ns"),
    "write.l3.netFilterCount": ("write", "l3_net_filter_count", _L, "count"),
    "write.l3.netFilterDuration": ("write", "l3_net_filter_duration_ns", _L, "ns"),
    "write.l2.duration": ("write", "l2_duration_ns", _L, "ns"),
    "write.l2.networkDeviceName": ("write", "l2_device_name", _S, ""),
    "write.l2.enterQueueBufferCount": ("write", "l2_enter_queue_buffer_count", _L, "count"),
    "write.l2.readySendDuration": ("write", "l2_ready_send_duration_ns", _L, "ns"),
    "write.l2.networkDeviceSendDuration": (
        "write",
        "l2_network_device_send_duration_ns",
        _L,
        "ns",
    ),
    "read.duration": ("read", "duration_ns", _L, "ns"),
    "read.syscall": ("read", "syscall_name", _S, ""),
    "read.l4.duration": ("read", "l4_duration_ns", _L, "ns"),
    "read.l3.duration": ("read", "l3_duration_ns", _L, "ns"),
    "read.l3.rcvDuration": ("read", "l3_rcv_duration_ns", _L, "ns"),
    "read.l3.localDuration": ("read", "l3_local_duration_ns", _L, "ns"),
    "read.l3.netFilterCount": ("read", "l3_net_filter_count", _L, "count"),
    "read.l3.netFilterDuration": ("read", "l3_net_filter_duration_ns", _L, "ns"),
    "read.l2.netDeviceName": ("read", "l2_device_name", _S, ""),
    "read.l2.packageCount": ("read", "l2_package_count", _L, "count"),
    "read.l2.totalPackageSize": ("read", "l2_total_package_size_bytes", _L, "bytes"),
    "read.l2.packageToQueueDuration": ("read", "l2_package_to_queue_duration_ns", _L, "ns"),
    "read.l2.rcvPackageFromQueueDuration": (
        "read",
        "l2_rcv_package_from_queue_duration_ns",
        _L,
        "ns",
    ),
}
_HTTP_ATTRIBUTES: Final = {
    "latency": ("latency_ms", _L, "ms"),
    "latencyNs": ("duration_ns", _L, "ns"),
    "serving.duration": ("serving_duration_ns", _L, "ns"),
    "url": ("path", _S, ""),
    "method": ("method_name", _S, ""),
    "statusCode": ("status_code", _L, ""),
    "sizeOfRequestHeader": ("request_header_size_bytes", _L, "bytes"),
    "sizeOfRequestBody": ("request_body_size_bytes", _L, "bytes"),
    "sizeOfResponseHeader": ("response_header_size_bytes", _L, "bytes"),
    "sizeOfResponseBody": ("response_body_size_bytes", _L, "bytes"),
}


def _table(attributes: list[Attribute]) -> Mapping[str, Attribute]:
    return MappingProxyType({attribute.path: attribute for attribute in attributes})


def _common(operations: tuple[str, ...]) -> list[Attribute]:
    return [_everywhere("layer", "K8S_SERVICE", operations, _S)]


def _names(operations: tuple[str, ...], **columns: Column | str) -> list[Attribute]:
    return [_everywhere(path, column, operations, _S) for path, column in columns.items()]


def _connection_attributes(*own: Attribute) -> Mapping[str, Attribute]:
    logs = [
        Attribute(path, value_type, {operation: _log(column, value_type, operation)}, unit)
        for path, (operation, column, value_type, unit) in _CONNECTION_LOG_ATTRIBUTES.items()
    ]
    http = [
        Attribute(f"protocol.http.{name}", value_type, {"http": _log(column, value_type)}, unit)
        for name, (column, value_type, unit) in _HTTP_ATTRIBUTES.items()
    ]
    detect_point = _peer("detect_point", ValueType.DETECT_POINT)
    return _table(
        [
            *own,
            *_common(OPERATIONS),
            _everywhere("detectPoint", detect_point, OPERATIONS, ValueType.DETECT_POINT),
            Attribute("type", _S, _TYPE_OF_OPERATION),
            *logs,
            Attribute("protocol.type", _S, {"http": "http"}),
            Attribute("protocol.success", _B, {"http": _log("success", _B)}),
            *http,
        ]
    )


_HTTP_ONLY: Final = ("http",)


def _endpoint_attributes(*own: Attribute) -> Mapping[str, Attribute]:
    http = [
        Attribute(f"http.{name}", value_type, {"http": _log(column, value_type)}, unit)
        for name, (column, value_type, unit) in _HTTP_ATTRIBUTES.items()
    ]
    return _table(
        [
            *own,
            *_common(_HTTP_ONLY),
            _everywhere("detectPoint", "SERVER", _HTTP_ONLY, ValueType.DETECT_POINT),
            Attribute("type", _S, {"http": "http"}),
            Attribute("success", _B, {"http": _log("success", _B)}),
            Attribute("duration", _L, {"http": _log("latency_ms", _L)}, "ms"),
            *http,
        ]
    )


_ALL_ROLES: Final = ("client", "server", "proxy")
_SERVING_ROLES: Final = ("server", "proxy")
_SERVICE: Final = _peer("local_service")
_INSTANCE: Final = _peer("local_instance")
_SOURCE_SERVICE: Final = _peer("source_service")
_SOURCE_INSTANCE: Final = _peer("source_instance")
_DEST_SERVICE: Final = _peer("dest_service")
_DEST_INSTANCE: Final = _peer("dest_instance")
_ENDPOINT: Final = _log("endpoint")
# Of a log alone nobody knows for which request the call was made (engine/calls).
_SOURCE_ENDPOINT: Final = _peer("source_endpoint")
_DERIVATION: Final = _peer("derivation")

_SCOPES: Final = (
    Scope(
        "K8SService",
        "service",
        {"service": _SERVICE},
        OPERATIONS,
        _connection_attributes(*_names(OPERATIONS, name=_SERVICE, serviceName=_SERVICE)),
        _ALL_ROLES,
        needs_local=True,
    ),
    Scope(
        "K8SServiceInstance",
        "service_instance",
        {"service": _SERVICE, "instance": _INSTANCE},
        OPERATIONS,
        _connection_attributes(
            *_names(OPERATIONS, serviceName=_SERVICE, serviceInstanceName=_INSTANCE)
        ),
        _ALL_ROLES,
        needs_local=True,
        needs=("local_instance",),
    ),
    Scope(
        "K8SEndpoint",
        "endpoint",
        {"service": _SERVICE, "endpoint": _ENDPOINT},
        _HTTP_ONLY,
        _endpoint_attributes(*_names(_HTTP_ONLY, serviceName=_SERVICE, endpointName=_ENDPOINT)),
        _SERVING_ROLES,
        needs_local=True,
    ),
    Scope(
        "K8SServiceRelation",
        "service_relation",
        {"source_service": _SOURCE_SERVICE, "dest_service": _DEST_SERVICE},
        OPERATIONS,
        _connection_attributes(
            *_names(
                OPERATIONS,
                sourceServiceName=_SOURCE_SERVICE,
                destServiceName=_DEST_SERVICE,
                tlsMode=_peer("tls_mode", members=TLS_MODES),
            ),
            _everywhere(
                "componentIds",
                _peer("component_ids", ValueType.COMPONENTS),
                OPERATIONS,
                ValueType.COMPONENTS,
            ),
        ),
        _ALL_ROLES,
        needs_local=False,
    ),
    Scope(
        "K8SServiceInstanceRelation",
        "service_instance_relation",
        {
            "source_service": _SOURCE_SERVICE,
            "source_instance": _SOURCE_INSTANCE,
            "dest_service": _DEST_SERVICE,
            "dest_instance": _DEST_INSTANCE,
        },
        OPERATIONS,
        _connection_attributes(
            *_names(
                OPERATIONS,
                sourceServiceName=_SOURCE_SERVICE,
                sourceServiceInstanceName=_SOURCE_INSTANCE,
                destServiceName=_DEST_SERVICE,
                destServiceInstanceName=_DEST_INSTANCE,
            )
        ),
        _ALL_ROLES,
        needs_local=False,
        needs=("source_instance", "dest_instance"),
    ),
    Scope(
        "K8SEndpointRelation",
        "endpoint_relation",
        {
            "source_service": _SOURCE_SERVICE,
            "source_endpoint": _SOURCE_ENDPOINT,
            "dest_service": _DEST_SERVICE,
            "dest_endpoint": _ENDPOINT,
            "derivation": _DERIVATION,
        },
        _HTTP_ONLY,
        _endpoint_attributes(
            *_names(
                _HTTP_ONLY,
                sourceServiceName=_SOURCE_SERVICE,
                sourceEndpointName=_SOURCE_ENDPOINT,
                destServiceName=_DEST_SERVICE,
                destEndpointName=_ENDPOINT,
            )
        ),
        _SERVING_ROLES,
        needs_local=False,
    ),
)

SCOPES: Final[Mapping[str, Scope]] = MappingProxyType({scope.name: scope for scope in _SCOPES})
