"""What framewalk computes of captures is what an OAP answered about them (README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison import Values, read_views

from framewalk.engine import Plan, ReplaySummary, Store, read_entities, replay

HERE = Path(__file__).parent
VIEWS = {
    "Service": "service",
    "ServiceInstance": "service_instance",
    "Endpoint": "endpoint",
    "ServiceRelation": "service_relation",
}
A_YEAR_S = 366 * 86_400


@pytest.fixture(scope="module")
def replayed(plan: Plan) -> Iterator[tuple[Values, ReplaySummary]]:
    with Store(":memory:", plan) as store:
        summary = replay([HERE], read_entities(HERE / "cluster.yaml"), store, most_ahead_s=A_YEAR_S)
        yield read_views(store), summary


def answers() -> list[dict[str, Any]]:
    """Return what it answered, but of endpoints that it tells apart by their query."""
    every = list(map(json.loads, (HERE / "values.jsonl").read_text().splitlines()))
    told_apart = [answer["names"] for answer in every if "?" in answer["names"][-1]]
    paths = [[*before, name.partition("?")[0]] for *before, name in told_apart]
    return [answer for answer in every if answer["names"] not in told_apart + paths]


def test_the_oap_counted_the_same_logs(replayed: tuple[Values, ReplaySummary]) -> None:
    _, summary = replayed
    assert summary.counters.logs == 64_073
    assert dict(summary.counters.dropped) == {"same_service": 834}


def test_every_value_is_that_of_the_oap(replayed: tuple[Values, ReplaySummary]) -> None:
    values, _ = replayed
    compared = 0
    for answer in answers():
        rows = values[VIEWS[answer["scope"]]]
        for number, want in enumerate(answer["values"]):
            minute = answer["first_ms"] // 1_000 + number * 60
            found = rows.get((tuple(answer["names"]), minute), {}).get(answer["metric"])
            if found is not None and answer["label"] is not None:
                found = found[f"p{answer['label']}"]
            assert found == want, (answer["names"], answer["metric"], minute)
            compared += want is not None
    assert compared == 1_982
