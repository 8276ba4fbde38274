"""Phase 2: what is cut into parts, and what several operations share."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
from comparison import assert_same

from framewalk.engine import CaptureReader
from framewalk.engine.kubernetes.addresses import read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan
from framewalk.engine.stages.entity_states import roll_up, roll_up_in_parts
from framewalk.engine.stages.peer_states import PeerStates
from framewalk.engine.stages.pipeline import first_phase
from framewalk.engine.stages.streams import Carried
from framewalk.engine.states.merging import merge

# Record batches: some minutes of some pods.
_BATCHES = 60


def found_in(folder: Path, plan: Plan) -> list[PeerStates]:
    """Return the states of the first logs of a capture, in two results of the first phase."""
    (path,) = folder.glob("*.capture.arrows")
    entities = read_entities(folder / "kubectl.yaml")
    with CaptureReader(path) as reader:
        batches = [one.messages for one in islice(reader, _BATCHES)]
    half = len(batches) // 2
    carried = Carried()
    found = []
    for some in (batches[:half], batches[half:]):
        for states, after in first_phase(pa.Table.from_batches(some), carried, entities, plan):
            found.append(states)
            carried = after
    return found


def test_parts_are_together_what_all_is(scenario: Path, few_plan: Plan) -> None:
    found = found_in(scenario, few_plan)
    parts = list(roll_up_in_parts(found, few_plan, 40))
    assert len(parts) > 2
    assert_same(few_plan, merge(few_plan, *parts), roll_up(found, few_plan))


def test_minutes_are_in_few_parts(scenario: Path, few_plan: Plan) -> None:
    # An entity has a row for each part that has a minute of it.
    minutes = [
        minute
        for part in roll_up_in_parts(found_in(scenario, few_plan), few_plan, 100)
        for minute in part.scopes["service"].scalars["minute"].unique().to_list()
    ]
    assert minutes == sorted(minutes)


def test_a_count_of_all_operations_is_the_sum_of_theirs(scenario: Path, tmp_path: Path) -> None:
    types = ("connect", "accept", "close", "read", "write", "protocol")
    of_type = {name: f'.filter(type == "{name}")' for name in types} | {"all": ""}
    at_client = ".filter(detectPoint == DetectPoint.CLIENT)"
    lines = [
        f"of_{name} = from(K8SServiceRelation.*){condition}{at_client}.count();"
        for name, condition in of_type.items()
    ]
    path = tmp_path / "counts.oal"
    path.write_text("\n".join(lines))
    plan = load_plan([path])
    (scope,) = (one for one in plan.scopes if one.metrics)
    states = {metric.name: metric.states[0].name for metric in scope.metrics}
    scalars = roll_up(found_in(scenario, plan), plan).scopes["service_relation"].scalars
    added = scalars.select(pl.sum_horizontal(states[f"of_{one}"] for one in types))
    assert added.to_series().sum() > 0
    assert added.to_series().to_list() == scalars[states["of_all"]].to_list()
