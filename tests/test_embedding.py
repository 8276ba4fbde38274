"""What a service hands to the engine: batches of its own, states of another plan, a lone path."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from conftest import CAPTURES

from framewalk.engine import (
    CaptureReader,
    Entities,
    InputError,
    Plan,
    States,
    load_plan,
    merge,
    partial,
    read_entities,
)

BOOKINFO = CAPTURES / "bookinfo"


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
