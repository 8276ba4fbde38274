"""The attributes of one log: path -> value, as the specification's third section names them."""

from collections import Counter
from typing import Any

from framewalk.engine.wire import access_log_pb2 as pb

OUT_OF_RANGE = 2**63
NS_PER_MS = 1_000_000
UNKNOWN_NAME = "UNKNOWN"
KINDS = ("connect", "accept", "close", "read", "write")

Quality = Counter[str]
Attributes = dict[str, Any]
Operation = Any  # the five kernel operations and HTTP have no common type
Enum = Any


def start_offset(operation: Operation) -> int:
    """Return the start of an operation in nanoseconds since boot."""
    return operation.startTime.offset.offset


def kernel_attributes(
    kind: str,
    operation: Operation,
    devices: dict[int, str],
    quality: Quality,
) -> Attributes:
    """Return what the connection scopes see of a kernel log."""
    found: Attributes = {"type": kind, f"{kind}.duration": _duration(operation, quality)}
    match kind:
        case "connect" | "close":
            found[f"{kind}.success"] = operation.success
        case "read":
            found |= _read(operation, devices, quality)
        case "write":
            found |= _write(operation, devices, quality)
    return found


def http_attributes(http: pb.AccessLogHTTPProtocol, quality: Quality) -> Attributes:
    """Return what every scope sees of an HTTP log, without the prefix of the scope."""
    request, response = http.request, http.response
    duration = _duration(http, quality)
    return {
        "success": response.statusCode < 500,
        "http.latency": duration // NS_PER_MS,
        "http.latencyNs": duration,
        "http.url": request.path,
        "http.method": method_name(http),
        "http.statusCode": response.statusCode,
        "http.sizeOfRequestHeader": _whole(request.sizeOfHeadersBytes, quality),
        "http.sizeOfRequestBody": _whole(request.sizeOfBodyBytes, quality),
        "http.sizeOfResponseHeader": _whole(response.sizeOfHeadersBytes, quality),
        "http.sizeOfResponseBody": _whole(response.sizeOfBodyBytes, quality),
    }


def for_connection(http: Attributes) -> Attributes:
    """Return the attributes of an HTTP log as the four connection scopes name them."""
    named = {f"protocol.{path}": value for path, value in http.items()}
    return {"type": "protocol", "protocol.type": "http", **named}


def for_endpoint(http: Attributes) -> Attributes:
    """Return the attributes of an HTTP log as the two endpoint scopes name them."""
    return {"type": "http", "duration": http["http.latency"], **http}


def method_name(http: pb.AccessLogHTTPProtocol) -> str:
    """Return the HTTP method in capitals."""
    return _enum_name(pb.AccessLogHTTPProtocolRequestMethod, http.request.method).upper()


def _read(operation: Operation, devices: dict[int, str], quality: Quality) -> Attributes:
    l2, l3, l4 = operation.l2Metrics, operation.l3Metrics, operation.l4Metrics
    filters = _whole(l3.totalNetFilterCount, quality)
    filtering = _whole(l3.totalNetFilterDuration, quality)
    return {
        "read.syscall": _enum_name(pb.AccessLogKernelReadSyscall, operation.syscall),
        "read.l4.duration": _whole(l4.totalDuration, quality),
        "read.l3.duration": _whole(l3.totalDuration, quality),
        "read.l3.rcvDuration": _whole(l3.totalRecvDuration, quality),
        "read.l3.localDuration": _whole(l3.totalLocalDuration, quality),
        "read.l3.netFilterCount": filters,
        "read.l3.netFilterDuration": filtering if filters else 0,
        "read.l2.netDeviceName": devices.get(l2.ifindex, ""),
        "read.l2.packageCount": l2.totalPackageCount,
        "read.l2.totalPackageSize": _whole(l2.totalPackageSize, quality),
        "read.l2.packageToQueueDuration": _whole(l2.totalPackageToQueueDuration, quality),
        "read.l2.rcvPackageFromQueueDuration": _whole(l2.totalRcvPackageFromQueueDuration, quality),
    }


def _write(operation: Operation, devices: dict[int, str], quality: Quality) -> Attributes:
    l2, l3, l4 = operation.l2Metrics, operation.l3Metrics, operation.l4Metrics
    resolves = _whole(l3.totalResolveMACCount, quality)
    resolving = _whole(l3.totalResolveMACDuration, quality)
    filters = _whole(l3.totalNetFilterCount, quality)
    filtering = _whole(l3.totalNetFilterDuration, quality)
    return {
        "write.syscall": _enum_name(pb.AccessLogKernelWriteSyscall, operation.syscall),
        "write.l4.duration": _whole(l4.totalDuration, quality),
        "write.l4.transmitPackageCount": _whole(l4.totalTransmitPackageCount, quality),
        "write.l4.retransmitPackageCount": _whole(l4.totalRetransmitPackageCount, quality),
        "write.l4.totalPackageSize": _whole(l4.totalPackageSize, quality),
        "write.l3.duration": _whole(l3.totalDuration, quality),
        "write.l3.localDuration": _whole(l3.totalLocalDuration, quality),
        "write.l3.outputDuration": _whole(l3.totalOutputDuration, quality),
        "write.l3.resolveMACCount": resolves,
        "write.l3.resolveMACDuration": resolving if resolves else 0,
        "write.l3.netFilterCount": filters,
        "write.l3.netFilterDuration": filtering if filters else 0,
        "write.l2.duration": _whole(l2.totalDuration, quality),
        "write.l2.networkDeviceName": devices.get(l2.ifindex, ""),
        "write.l2.enterQueueBufferCount": _whole(l2.totalEnterQueueBufferCount, quality),
        "write.l2.readySendDuration": _whole(l2.totalReadySendDuration, quality),
        "write.l2.networkDeviceSendDuration": _whole(l2.totalNetDeviceSendDuration, quality),
    }


def _duration(operation: Operation, quality: Quality) -> int:
    passed = operation.endTime.offset.offset - start_offset(operation)
    if passed < 0:
        quality["negative_duration"] += 1
        return 0
    return _whole(passed, quality)


def _whole(value: int, quality: Quality) -> int:
    if 0 <= value < OUT_OF_RANGE:
        return value
    quality["value_out_of_range"] += 1
    return 0


def _enum_name(enum: Enum, number: int) -> str:
    return enum.Name(number) if number in enum.values() else UNKNOWN_NAME
