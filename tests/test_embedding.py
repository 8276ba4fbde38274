"""What a service hands to the engine: batches of its own, states of another plan, a lone path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import CAPTURES

from framewalk.engine import (
    CaptureError,
    CaptureReader,
    CaptureWriter,
    Entities,
    FramewalkError,
    InputError,
    Plan,
    States,
    Store,
    StoreError,
    load_plan,
    merge,
    open_for_reading,
    partial,
    read_entities,
    replay,
)

BOOKINFO = CAPTURES / "bookinfo"


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="module")
def batches() -> list[pa.RecordBatch]:
    with CaptureReader(next(BOOKINFO.glob("*.arrows"))) as reader:
        return [batch.messages for batch in reader]


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(BOOKINFO / "kubectl.yaml")


def content(states: States) -> list[list[tuple[object, ...]]]:
    frames = [scope.scalars for scope in states.scopes.values()]
    return [sorted(frame.rows(), key=str) for frame in frames]


def test_batches_of_other_types_count_the_same(
    batches: list[pa.RecordBatch], entities: Entities, plan: Plan
) -> None:
    def own(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {name: batch[name] for name in reversed(batch.schema.names)}
        columns["message"] = columns["message"].cast(pa.large_binary())
        columns["received_at"] = columns["received_at"].cast(pa.timestamp("us", "UTC"), safe=False)
        return pa.record_batch(columns | {"own": pa.nulls(batch.num_rows)})

    wanted = content(partial(batches, entities, plan))
    assert content(partial(map(own, batches), entities, plan)) == wanted
    assert any(wanted)


def test_a_batch_of_something_else_is_refused(
    batches: list[pa.RecordBatch], entities: Entities, plan: Plan
) -> None:
    (batch, *_) = batches
    texts = batch.set_column(0, "stream", pa.array(["x"] * batch.num_rows))
    for wrong in (pa.record_batch({"own": [1]}), batch.drop_columns(["seq"]), texts):
        with pytest.raises(InputError, match="its columns are not those of captured messages"):
            partial([wrong], entities, plan)


def test_states_of_another_plan_are_refused(
    batches: list[pa.RecordBatch], entities: Entities, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "small.oal"
    path.write_text("service_calls = from(K8SService.*).count();\n")
    states = partial(batches, entities, load_plan(path))
    with pytest.raises(InputError, match="they are of another plan: "):
        merge(plan, states)


NUL = "a\0b"
LONG = "a" * 5_000


@pytest.mark.parametrize("path", [NUL, LONG, "a" * 256])
def test_what_cannot_be_a_path_is_told_at_every_door(path: str, plan: Plan) -> None:
    doors: list[Callable[[], object]] = [
        lambda: CaptureReader(path),
        lambda: CaptureWriter(path),
        lambda: read_entities(path),
        lambda: load_plan(path),
        lambda: Store(path, plan),
        lambda: open_for_reading(path),
    ]
    for door in doors:
        with pytest.raises(FramewalkError):
            door()
    with Store(":memory:", plan) as store, pytest.raises(FramewalkError):
        replay([path], Entities.empty(), store)


def test_a_wrong_query_is_told(tmp_path: Path) -> None:
    oal = tmp_path / "one.oal"
    oal.write_text("a = from(K8SService.*).cpm();", encoding="utf-8")
    store = Store(":memory:", load_plan(oal))
    with pytest.raises(InputError, match=r"query: Parser Error: .*; correct the query"):
        store.query("SELEC")
    with pytest.raises(InputError, match=r"query: Catalog Error: .*; correct the query"):
        store.query("FROM nothing")
    store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        store.query("FROM metrics")


def test_a_batch_that_is_no_capture_is_not_written(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "x.capture.arrows") as writer:
        with pytest.raises(CaptureError, match="this is no batch of messages"):
            writer.write(pa.record_batch({"stream": pa.array([1], pa.uint64())}))
        with pytest.raises(CaptureError, match="this is no batch of messages"):
            writer.write("nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize("most_ahead_s", [float("nan"), float("inf"), -1, 10**10])
def test_what_is_no_time_is_told(most_ahead_s: float, plan: Plan) -> None:
    with pytest.raises(InputError, match="is no time to be ahead; give seconds from 0"):
        partial([], Entities.empty(), plan, most_ahead_s=most_ahead_s)
    with Store(":memory:", plan) as store, pytest.raises(InputError, match="is no time"):
        replay([BOOKINFO], Entities.empty(), store, most_ahead_s=most_ahead_s)
