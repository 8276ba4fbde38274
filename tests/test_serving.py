"""How long a request was really being served, worked out by hand from its reads and writes."""

from __future__ import annotations

import polars as pl
import pytest
from batches import as_batch

from framewalk.engine import Entities, load_plan, partial
from framewalk.engine.wire import access_log_pb2 as pb

NS = 10**9
BOOT_S = 1_700_000_040
LAST_NS = 2**63 - 1
CLIENT, SERVER, PROXY = 0, 1, 2
Spans = list[tuple[int, int]]

# role, reads, writes, and how long that is
CASES: dict[str, tuple[int, Spans, Spans, int | None]] = {
    "a server that waited for the request": (SERVER, [(0, 900)], [(950, 960)], 60),
    "a request in two reads": (SERVER, [(0, 10), (20, 35)], [(100, 130)], 95),
    "an answer in two writes, told in any order": (SERVER, [(5, 9)], [(80, 90), (20, 30)], 81),
    "a read that began after the first write": (SERVER, [(0, 10), (50, 70)], [(40, 60)], 50),
    "only reads after the first write": (SERVER, [(50, 70)], [(40, 60)], None),
    "a server without a read": (SERVER, [], [(40, 60)], None),
    "a server without a write": (SERVER, [(40, 60)], [], None),
    "a read that ended after all writes": (SERVER, [(0, 100)], [(40, 60)], None),
    "a read that ends before it begins": (SERVER, [(30, 10)], [(40, 60)], 30),
    "a client": (CLIENT, [(900, 1_000)], [(50, 60), (70, 80)], 950),
    "a client that read before it wrote": (CLIENT, [(0, 10)], [(40, 60)], None),
    "a client without a read": (CLIENT, [], [(40, 60)], None),
    "a proxy is the caller": (PROXY, [(900, 1_000)], [(50, 60)], 950),
    "a write whose time is out of range": (SERVER, [(0, 10)], [(20, 30), (LAST_NS, 0)], 20),
}


def message(minute: int, role: int, reads: Spans, writes: Spans) -> bytes:
    made = pb.EBPFAccessLogMessage()
    made.node.bootTime.seconds = BOOT_S
    made.connection.role = role
    made.connection.local.kubernetes.serviceName = "shop"
    made.connection.remote.kubernetes.serviceName = "pay"
    at_ns = minute * 60 * NS
    spans = [(made.kernelLogs.add().read, span) for span in reads]
    spans += [(made.kernelLogs.add().write, span) for span in writes]
    for operation, (start, end) in [*spans, (made.protocolLog.http, (0, 0))]:
        operation.startTime.offset.offset = min(at_ns + start, LAST_NS)
        operation.endTime.offset.offset = min(at_ns + end, LAST_NS)
    return made.SerializeToString()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, int | None]:
    """Return the duration of each case; each is a minute of its own."""
    oal = tmp_path_factory.mktemp("oal") / "served.oal"
    oal.write_text("served = from(K8SService.protocol.http.serving.duration).sum();")
    rows = [(1, at, 2**62, message(at, *case[:3])) for at, case in enumerate(CASES.values())]
    states = partial([as_batch(rows)], Entities.empty(), load_plan(oal))
    scalars = states.scopes["service"].scalars
    total = pl.col("^.*sum.*$")
    count = pl.col("^.*count.*$")
    values = scalars.select(pl.col("minute") - BOOT_S // 60, pl.when(count > 0).then(total))
    return dict(values.iter_rows())


@pytest.mark.parametrize("case", CASES)
def test_serving_is_told_by_reads_and_writes(case: str, found: dict[int, int | None]) -> None:
    assert found[list(CASES).index(case)] == CASES[case][3]
