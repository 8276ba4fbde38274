"""What every method answers, whatever the transport (wire.md).

Access logs are not looked into: a stream's messages go to the spool as they came. The process
services answer so that Rover runs: it repeats what is left out of an answer.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from framewalk.engine.errors import FramewalkError
from framewalk.engine.wire.process_pb2 import (
    EBPFProcessReportList,
    EBPFReportProcessDownstream,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from framewalk.engine.wire.process_pb2 import (
        EBPFHostProcessMetadata,
        EBPFKubernetesProcessMetadata,
        EBPFProcessProperties,
    )

    _Metadata = EBPFHostProcessMetadata | EBPFKubernetesProcessMetadata

COLLECT: Final = "/skywalking.v3.EBPFAccessLogService/collect"
_PACKAGE: Final = "/skywalking.v3"

# An empty message of any type, and so the answer "no task", "no policy", "received".
NOTHING: Final = b""


class BadRequestError(FramewalkError):
    """A request cannot be decoded."""


def report_processes(request: bytes) -> bytes:
    """Give every reported process an id: the same one for the same process, always."""
    try:
        report = EBPFProcessReportList.FromString(request)
    except DecodeError as error:
        message = "the process report is not an EBPFProcessReportList"
        raise BadRequestError(message) from error
    answer = EBPFReportProcessDownstream()
    for process in report.processes:
        kind = process.WhichOneof("metadata")
        if kind is not None:
            _identify(answer, process, kind)
    return answer.SerializeToString()


def _identify(
    answer: EBPFReportProcessDownstream, process: EBPFProcessProperties, kind: str
) -> None:
    metadata = getattr(process, kind)
    downstream = answer.processes.add(processId=_process_id(kind, metadata))
    told = getattr(downstream, kind)
    told.pid = metadata.pid
    told.entityMetadata.CopyFrom(metadata.entity)


def _process_id(kind: str, metadata: _Metadata) -> str:
    """Hash what Rover tells processes apart by; labels and properties may change."""
    entity = metadata.entity
    names = (entity.layer, entity.serviceName, entity.instanceName, entity.processName)
    return hashlib.sha256("\0".join((kind, str(metadata.pid), *names)).encode()).hexdigest()


def nothing(_request: bytes) -> bytes:
    """Answer without looking at the request."""
    return NOTHING


UNARY_METHODS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    f"{_PACKAGE}.EBPFProcessService/reportProcesses": report_processes,
    f"{_PACKAGE}.EBPFProcessService/keepAlive": nothing,
    f"{_PACKAGE}.EBPFProfilingService/queryTasks": nothing,
    f"{_PACKAGE}.ContinuousProfilingService/queryPolicies": nothing,
    f"{_PACKAGE}.ContinuousProfilingService/reportProfilingTask": nothing,
}
# Streams whose messages are read and thrown away: Rover sends none while it has no task.
IGNORED_STREAMS: Final = (f"{_PACKAGE}.EBPFProfilingService/collectProfilingData",)
