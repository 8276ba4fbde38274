"""What the shipped queries answer where not everything was seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from framewalk.engine import CaptureReader, CaptureWriter, Store, load_plan, read_entities, replay
from framewalk.engine.oal.plan import Plan
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage
from framewalk.queries.shipped import shipped_queries

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
CAPTURE = BOOKINFO / "bookinfo.capture.arrows"
DUMP = BOOKINFO / "kubectl.yaml"
RELATION = "kubernetes_service_relation"
# Requests per minute, percent of success, p99 in ms.
Shown = tuple[float, float, float]


@pytest.fixture(params=["book-worker", "book-worker2", "book-worker3"])
def half_dead(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A capture in which the Rover of one node falls silent at half-time."""
    with CaptureReader(CAPTURE) as reader:
        messages = pa.Table.from_batches([batch.messages for batch in reader])
    node: dict[int, str] = {}
    columns = (messages[name].to_pylist() for name in ("stream", "message"))
    for stream, content in zip(*columns, strict=True):
        message = EBPFAccessLogMessage.FromString(content)
        if message.HasField("node"):
            node[stream] = message.node.name
    assert request.param in node.values()
    silent = pa.array([one for one, name in node.items() if name == request.param], pa.uint64())
    ends = pc.min_max(messages["received_at"].cast(pa.int64()))
    half_ns = (ends["min"].as_py() + ends["max"].as_py()) // 2
    is_late = pc.greater(messages["received_at"].cast(pa.int64()), half_ns)
    is_lost = pc.and_(is_late, pc.is_in(messages["stream"], silent))
    path = tmp_path / "half_dead.capture.arrows"
    with CaptureWriter(path) as writer:
        for batch in messages.filter(pc.invert(is_lost)).to_batches():
            writer.write(batch)
    return path


def seen_by(store: Store, end: str) -> dict[tuple[str, str], tuple[int, Shown]]:
    """Return the requests that one end saw, and what should be shown of them."""
    calls = f"{RELATION}_{end}_http_call_cpm"
    rows = store.query(
        f"SELECT source_service, dest_service, sum({calls}), count({calls}), "
        f"sum({RELATION}_{end}_http_success_cpm) FROM service_relation_minute "
        f"GROUP BY ALL HAVING sum({calls}) > 0"
    ).fetchall()
    slowest = store.query(
        f"SELECT source_service, dest_service, {RELATION}_{end}_http_latency_ns_percentile.p99"
        " / 1e6 FROM service_relation_day"
    ).fetchall()
    p99_ms = {(source, dest): value for source, dest, value in slowest}
    return {
        (source, dest): (
            int(count),
            (count / minutes, 100 * (well or 0) / count, p99_ms[source, dest]),
        )
        for source, dest, count, minutes, well in rows
    }


def test_the_map_shows_the_end_that_saw_more(
    half_dead: Path, plan: Plan, empty_store: Path, tmp_path: Path
) -> None:
    with Store(Path(shutil.copy(empty_store, tmp_path / "store.duckdb")), plan) as store:
        replay([half_dead], read_entities(DUMP), store)
        rows = store.query(shipped_queries()["service_map"]).fetchall()
        server, client = seen_by(store, "server"), seen_by(store, "client")
    shown = {(source, dest): tuple(values) for source, dest, *values in rows}
    assert len(shown) == len(rows)
    assert shown.keys() == server.keys() | client.keys()
    both = server.keys() & client.keys()
    assert both
    for pair, values in shown.items():
        ends = [end[pair] for end in (server, client) if pair in end]
        _, expected = max(ends, key=lambda end: end[0])
        assert values == pytest.approx(expected, abs=0.051), pair
    assert any(client[pair][0] > server[pair][0] for pair in both)


def test_endpoints_that_always_fail_succeed_in_no_percent(tmp_path: Path) -> None:
    oal = tmp_path / "failing.oal"
    oal.write_text(FAILING, encoding="utf-8")
    with Store(":memory:", load_plan([oal])) as store:
        replay([CAPTURE], read_entities(DUMP), store)
        rows = store.query(shipped_queries()["slowest_endpoints"]).fetchall()
    assert {row[-1] for row in rows} == {0}


# As shipped, but of requests that failed only.
FAILING = "".join(
    f"kubernetes_service_endpoint_http_{name} = from(K8SEndpoint.{attribute})"
    f".filter(success == false){condition}.{function}();\n"
    for name, attribute, condition, function in (
        ("call_cpm", "*", "", "cpm"),
        ("call_duration", "http.latency", "", "sum"),
        ("call_time", "http.latency", "", "longAvg"),
        ("latency_ns_percentile", "http.latencyNs", "", "relativePercentile"),
        ("success_cpm", "*", ".filter(http.statusCode > 900)", "cpm"),
    )
)
