"""The shipped OAL files define the metrics of the two specifications, and those of framewalk."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.engine.oal.bound import Metric
from framewalk.engine.oal.plan import Plan

SPEC = Path(__file__).parent / "spec"
BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"

Row = dict[str, str]


def read_rows(name: str) -> list[Row]:
    with (SPEC / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_row(metric: Metric) -> Row:
    definition = metric.definition
    return {
        "scope": definition.source.scope,
        "metric": definition.name,
        "attribute": str(definition.source.attribute),
        "filters": " && ".join(map(str, definition.filters)),
        "function": definition.function.name,
        "arguments": ", ".join(map(str, definition.function.arguments)),
        "decorator": definition.decorator.value if definition.decorator else "",
    }


def test_each_metric_of_the_ecosystem_is_defined_as_specified(plan: Plan) -> None:
    defined = {metric.name: as_row(metric) for metric in plan.metrics}
    for row in read_rows("metrics.csv"):
        assert defined[row["metric"]] == row


def test_each_metric_of_the_monitoring_page_is_defined_as_specified(plan: Plan) -> None:
    defined = {metric.name: metric for metric in plan.metrics}
    for row in read_rows("monitoring-metrics.csv"):
        metric = defined[row["metric"]]
        found = as_row(metric) | {"family": metric.family, "unit": metric.unit}
        wanted = {key: row[key] for key in found if key in row}
        assert {key: found[key] for key in wanted} == wanted


def test_each_metric_of_its_own_is_defined_as_written_down(plan: Plan) -> None:
    defined = {metric.name: metric for metric in plan.metrics}
    for row in read_rows("own-metrics.csv"):
        assert as_row(defined[row["metric"]]) == row
        assert defined[row["metric"]].unit == "ns"


def test_nothing_else_is_defined(plan: Plan) -> None:
    names = {row["metric"] for row in read_rows("metrics.csv")}
    names |= {row["metric"] for row in read_rows("monitoring-metrics.csv")}
    assert len(names) == 426
    own = {row["metric"] for row in read_rows("own-metrics.csv")}
    assert names.isdisjoint(own)
    assert {metric.name for metric in plan.metrics} == names | own


def test_few_states_serve_all_definitions(plan: Plan) -> None:
    states = sum(len(states) for states in plan.log_states.values())
    assert states == 59


def test_definitions_can_be_given_as_files_and_folders(tmp_path: Path) -> None:
    one = tmp_path / "one.oal"
    one.write_text("a = from(K8SService.*).cpm();", encoding="utf-8")
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "two.oal").write_text("b = from(K8SService.*).count()", encoding="utf-8")
    names = [metric.name for metric in load_plan([one, folder]).metrics]
    assert names == ["a", "b"]


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_alone_is_one_path(tmp_path: Path, kind: type[str | Path]) -> None:
    oal = tmp_path / "one.oal"
    oal.write_text("a = from(K8SService.*).cpm();", encoding="utf-8")
    plan = load_plan(kind(oal))
    assert [metric.name for metric in plan.metrics] == ["a"]
    with Store(":memory:", plan) as store:
        replay(kind(BOOKINFO), read_entities(BOOKINFO / "kubectl.yaml"), store)
        assert store.query("FROM service_minute").fetchall()
