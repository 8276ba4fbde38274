"""Pages of panels as files: SkyWalking's load, ours are right, and faults are told by place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prepared import framewalk

from framewalk.engine.errors import InputError
from framewalk.engine.oal import Plan
from framewalk.queries.mqe import metric_names, parse
from framewalk.queries.panels import (
    Finding,
    Severity,
    Widget,
    check_pages,
    read_pages,
    shipped_pages,
)

# Made equal to the seven files of SkyWalking 10.4, out of their description.
SKYWALKING = Path(__file__).parent / "panels" / "skywalking-10.4"
CHARTS = {"Area", "Bar", "Card", "Line", "Table"}
GOOD: dict[str, object] = {
    "x": 0,
    "y": 0,
    "w": 8,
    "h": 10,
    "type": "Widget",
    "expressions": ["kubernetes_service_http_call_cpm"],
    "graph": {"type": "Line"},
    "widget": {"title": "Load"},
}


@pytest.fixture(scope="module")
def metrics(plan: Plan) -> set[str]:
    return {metric.name for metric in plan.metrics}


def page(*widgets: dict[str, object], **fields: object) -> list[object]:
    configuration = {"layer": "K8S_SERVICE", "entity": "Service", "name": "Mine"}
    return [{"id": "mine", "configuration": {**configuration, **fields, "children": widgets}}]


def write(folder: Path, content: object, name: str = "mine.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def findings(folder: Path, metrics: set[str]) -> list[Finding]:
    pages, found = read_pages(folder)
    return [*found, *check_pages(pages, metrics)]


def test_nothing_is_wrong_with_the_shipped_pages(metrics: set[str]) -> None:
    pages = shipped_pages()
    assert {one.page.entity for one in pages} == {
        "All",
        "Service",
        "ServiceInstance",
        "Endpoint",
        "ServiceRelation",
        "ServiceInstanceRelation",
        "EndpointRelation",
    }
    assert list(map(str, check_pages(pages, metrics))) == []
    # What pages elsewhere leave out, and is looked at first.
    shown = {name for one in pages for name in names_in(one.page.widgets())}
    assert {name for name in metrics if name.endswith("_ns_percentile")} <= shown


def names_in(widgets: object) -> set[str]:
    found: set[str] = set()
    for widget in widgets:  # type: ignore[attr-defined]
        for expression in widget.every_expression():
            found |= metric_names(parse(expression))
    return found


def test_widgets_of_shipped_pages_do_not_overlap() -> None:
    for one in shipped_pages():
        groups = [one.page.children]
        groups += [tab.children for widget in one.page.children for tab in widget.children or ()]
        for widgets in groups:
            cells = [cell for widget in widgets for cell in cells_of(widget)]
            assert len(cells) == len(set(cells)), one.page.name
            assert all(x < 24 for x, _ in cells), one.page.name


def cells_of(widget: Widget) -> set[tuple[int, int]]:
    columns = range(int(widget.x), int(widget.x + widget.w))
    return {(x, y) for x in columns for y in range(int(widget.y), int(widget.y + widget.h))}


def test_pages_of_skywalking_load_and_what_stays_empty_is_told(metrics: set[str]) -> None:
    pages, found = read_pages(SKYWALKING)
    assert (len(pages), found) == (7, [])
    charts = [
        widget
        for one in pages
        if one.page.entity != "ProcessRelation"
        for widget in one.page.widgets()
        if widget.type == "Widget" and widget.kind in CHARTS
    ]
    with_data = [chart for chart in charts if names_in([chart]) <= metrics]
    assert (len(charts), len(with_data)) == (131, 123)
    told = list(check_pages(pages, metrics))
    assert {one.severity for one in told} == {Severity.WARNING}
    without = {chart.title for chart in charts} - {chart.title for chart in with_data}
    assert {repr(title) for title in without} <= {one.place for one in told}
    assert all("did you mean" not in one.remedy for one in told)


def test_what_is_not_known_is_kept() -> None:
    (found,) = (one for one in read_pages(SKYWALKING)[0] if one.page.entity == "Endpoint")
    written = json.loads(found.path.read_text("utf-8"))[0]["configuration"]
    assert found.content == written
    kept = found.page.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert kept == written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[\n  {"id": "a",\n   "configuration": {]}\n]', "line 3, column 22: error: this is not"),
        ("", "line 1, column 1: error: this is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ([{"id": "a"}], "[0]: error: there is no page"),
        ([1], "[0]: error: there is no page"),
        (page({**GOOD, "w": "wide"}), "[0].configuration.children[0].w: error: "),
        (page({**GOOD, "w": 0}), "[0].configuration.children[0].w: error: "),
        (page(GOOD, entity="Planet"), "[0].configuration.entity: error: "),
        ([{"id": "a", "configuration": "{"}], "[0].configuration: line 1, column 2: error: "),
    ],
)
def test_a_file_that_is_no_page_is_told_by_its_place(
    content: object, words: str, tmp_path: Path, metrics: set[str]
) -> None:
    write(tmp_path, page(GOOD, name="Good"), "good.json")
    (found,) = findings(write(tmp_path, content), metrics)
    assert words in str(found)
    assert str(found).startswith(f"{tmp_path / 'mine.json'}: ")
    assert found.severity is Severity.ERROR
    # The others are there.
    assert [one.page.name for one in read_pages(tmp_path)[0]] == ["Good"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expressions": ["avg("]}, "'Load', avg(: error: "),
        (
            {"expressions": ["kubernetes_service_http_cal_cpm"]},
            "did you mean kubernetes_service_http_call_cpm?",
        ),
        ({"expressions": []}, "'Load': warning: this Line has no expression; it stays empty"),
        (
            {"type": "DemandLog", "graph": None},
            "'Load': warning: DemandLog is about what framewalk does not keep; it stays empty",
        ),
        (
            {"valueRelatedDashboard": "Mime"},
            "it leads to 'Mime', and there is no such page here; did you mean Mine?",
        ),
        (
            {"subExpressions": ["latest(k8s_service_pod_total)"]},
            "'Load': warning: k8s_service_pod_total comes from elsewhere than Rover's logs",
        ),
    ],
)
def test_a_widget_that_cannot_be_shown_says_why(
    changes: dict[str, object], words: str, tmp_path: Path, metrics: set[str]
) -> None:
    tab = {
        "type": "Tab",
        "w": 24,
        "h": 9,
        "children": [{"name": "a", "children": [GOOD | changes]}],
    }
    (found,) = findings(write(tmp_path, page(GOOD, tab)), metrics)
    assert words in str(found)


def test_files_may_have_comments_several_pages_and_pages_as_text(
    tmp_path: Path, metrics: set[str]
) -> None:
    first = json.dumps(page(GOOD, name="http://first /* no comment */")[0])
    second = json.dumps({"id": "b", "configuration": json.dumps(page(GOOD)[0]["configuration"])})  # type: ignore[index]
    write(tmp_path, f"// mine\n[{first}, /* the\nother */ {second}]")
    assert findings(tmp_path, metrics) == []
    names = [one.page.name for one in read_pages(tmp_path)[0]]
    assert names == ["http://first /* no comment */", "Mine"]


def test_two_pages_of_one_name_are_an_error(tmp_path: Path, metrics: set[str]) -> None:
    for name in ("a.json", "b.json"):
        write(tmp_path, page(GOOD), name)
    (found,) = findings(tmp_path, metrics)
    assert "b.json: error: 'Mine' of Service is also in a.json" in str(found)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is not there"):
        read_pages(tmp_path / "nowhere")


def test_the_command_exports_lists_and_checks(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    assert framewalk("panels", "export", folder).returncode == 0
    assert framewalk("panels", "export", folder).returncode == 1
    listed = framewalk("panels", "list", folder, "-f", "json")
    assert {one["page"] for one in json.loads(listed.stdout)} >= {"Kubernetes-Services"}
    done = framewalk("panels", "check", folder)
    assert (done.returncode, done.stdout) == (0, "7 pages, 0 errors, 0 warnings\n")
    write(folder, "[", "broken.json")
    done = framewalk("panels", "check", folder)
    assert done.returncode == 1
    assert "broken.json: line 1, column 2: error: this is not JSON" in done.stdout
    assert done.stdout.endswith("7 pages, 1 error, 0 warnings\n")
