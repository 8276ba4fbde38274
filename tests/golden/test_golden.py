"""What framewalk computes of captures is what an OAP answered about them (README.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from comparison import Values, read_views

from framewalk.engine import Plan, Store

HERE = Path(__file__).parent
VIEWS = {
    "Service": "service",
    "ServiceInstance": "service_instance",
    "Endpoint": "endpoint",
    "ServiceRelation": "service_relation",
}


@pytest.fixture(scope="module")
def values(golden_store: Path, tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Values:
    copied = shutil.copy(golden_store, tmp_path_factory.mktemp("golden") / "values.duckdb")
    with Store(copied, plan) as store:
        return read_views(store)


def answers() -> list[dict[str, Any]]:
    """Return what it answered, but of endpoints that it tells apart by their query."""
    every = list(map(json.loads, (HERE / "values.jsonl").read_text().splitlines()))
    told_apart = [answer["names"] for answer in every if "?" in answer["names"][-1]]
    paths = [[*before, name.partition("?")[0]] for *before, name in told_apart]
    return [answer for answer in every if answer["names"] not in told_apart + paths]


def test_the_oap_counted_the_same_logs(golden_store: Path) -> None:
    counted = json.loads(golden_store.with_suffix(".json").read_text())
    assert counted == {"logs": 64_073, "dropped": {"same_service": 834}}


def test_every_value_is_that_of_the_oap(values: Values) -> None:
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
