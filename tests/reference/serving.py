"""How long a request was being served, told from the reads and writes in its own message."""

from typing import NamedTuple

from framewalk.engine.wire import access_log_pb2 as pb

LAST_NS = 2**63 - 1


class _Span(NamedTuple):
    start: int
    end: int


def serving_ns(message: pb.EBPFAccessLogMessage, boot_ns: int, *, by_server: bool) -> int | None:
    """Return the duration of docs/semantics.md, section Latencies; None where there is none."""
    reads = _spans(message, "read", boot_ns)
    writes = _spans(message, "write", boot_ns)
    if not reads or not writes:
        return None
    first_write = min(write.start for write in writes)
    if not by_server:
        passed = max(read.end for read in reads) - first_write
        return passed if passed >= 0 else None
    asked = [read.end for read in reads if read.start < first_write]
    if not asked:
        return None
    passed = max(write.end for write in writes) - max(asked)
    return passed if passed >= 0 else None


def _spans(message: pb.EBPFAccessLogMessage, kind: str, boot_ns: int) -> list[_Span]:
    found = []
    for log in message.kernelLogs:
        if log.WhichOneof("operation") != kind:
            continue
        operation = getattr(log, kind)
        first, last = operation.startTime.offset.offset, operation.endTime.offset.offset
        start = boot_ns + first
        passed = last - first if 0 <= last - first <= LAST_NS else 0
        if 0 <= start <= LAST_NS:
            found.append(_Span(start, min(start + passed, LAST_NS)))
    return found
