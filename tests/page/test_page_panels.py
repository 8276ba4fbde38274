"""Panels of files in a browser: what ships, what SkyWalking shipped, and what somebody changes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, ask, open_tab, serving_page
from playwright.sync_api import Browser
from sql_serving import replay_into, serving, url

from framewalk.engine import Plan, Store, load_plan, read_entities, replay
from framewalk.engine.captures.format import find_captures
from framewalk.queries.panels import Page, Widget, read_pages, shipped_pages
from framewalk.queries.reading import secure

pytest_plugins = ["tabs"]

TESTS = Path(__file__).parent.parent
ROVER = TESTS / "rover"
SKYWALKING = TESTS / "panels" / "skywalking-10.4"
SERVICE = "reviews.bookinfo"
PNG = b"\x89PNG\r\n\x1a\n"
VIEWS = {
    "All": "dashboards",
    "Service": "service",
    "ServiceInstance": "pod",
    "Endpoint": "endpoint",
    "ServiceRelation": "edge",
    "ServiceInstanceRelation": "pod-edge",
    "EndpointRelation": "endpoint-edge",
}
ENTITIES = {
    "ServiceInstance": "SELECT service, instance FROM service_instance_minute "
    "ORDER BY kubernetes_service_instance_http_call_cpm",
    "Endpoint": "SELECT service, endpoint FROM endpoint_minute "
    "ORDER BY kubernetes_service_endpoint_http_call_cpm",
    "ServiceRelation": "SELECT source_service AS source, dest_service AS dest "
    "FROM service_relation_minute WHERE source_service <> 'Unknown' "
    "ORDER BY kubernetes_service_relation_server_http_call_cpm",
    "ServiceInstanceRelation": "SELECT source_service AS source, dest_service AS dest, "
    "source_instance, dest_instance FROM service_instance_relation_minute "
    "WHERE source_service <> 'Unknown' "
    "ORDER BY kubernetes_service_instance_relation_server_http_call_cpm",
    "EndpointRelation": "SELECT source_service AS source, dest_service AS dest, "
    "source_endpoint, dest_endpoint FROM endpoint_relation_minute "
    "ORDER BY kubernetes_service_endpoint_relation_http_call_cpm",
}
CHARTS = {"Line", "Area", "Bar"}


def about(store: Store) -> dict[str, dict[str, str]]:
    """Return an entity of each kind that has requests, as addresses name them."""
    found: dict[str, dict[str, str]] = {"All": {}, "Service": {"service": SERVICE}}
    for kind, query in ENTITIES.items():
        cursor = store.connection.cursor().execute(f"{query} DESC NULLS LAST LIMIT 1")
        names = [column[0] for column in cursor.description or ()]
        found[kind] = dict(zip(names, cursor.fetchall()[0], strict=True))
    return found


def groups(page: Page) -> Iterator[tuple[dict[str, str], list[Widget]]]:
    """Yield what is shown at once: the widgets beside tabs with those of each tab."""
    tabs = [widget for widget in page.children if widget.type == "Tab"]
    beside = [widget for widget in page.children if widget.type != "Tab"]
    for tab in tabs[0].children or () if tabs else ():
        yield {"tab": tab.name}, [*beside, *tab.children]
    if not tabs:
        yield {}, beside


@pytest.mark.parametrize("found", shipped_pages(), ids=lambda found: found.id)
def test_every_shipped_page_is_shown(tab: Tab, store: Store, found: Any) -> None:  # noqa: ANN401
    """Each panel has an answer and says how it came; nothing is wider than the window."""
    page: Page = found.page
    entity = about(store)[page.entity]
    drawn = 0
    for group, widgets in groups(page):
        tab.open(VIEWS[page.entity], page=found.id, **entity, **group)
        panels = tab.panels()
        assert set(panels.values()) == {"done"}
        assert len(panels) == len(widgets)
        assert tab.texts(".fault") == []
        drawn += tab.page.locator(".panel .chart canvas").count()
        for width in (390, 1_280, 2_560):
            tab.page.set_viewport_size({"width": width, "height": 900})
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        first = next(iter(panels))
        for name in ("SQL", "MQE"):
            tab.page.locator(f"#{first} .actions button", has_text=name).click()
            tab.page.wait_for_selector(f"#{first} .sql pre")
            shown = tab.page.locator(f"#{first} .sql pre").all_text_contents()
            if name == "SQL":
                assert all(ask(store, sql) for sql in shown)
            else:
                assert set(shown) <= set(widgets[0].every_expression())
    charts = [one for one in page.widgets() if one.type == "Widget" and one.kind in CHARTS]
    assert drawn >= 0.6 * len(charts)


def test_numbers_units_and_percentiles_are_those_of_the_store(tab: Tab, store: Store) -> None:
    tab.open("service", service=SERVICE, page="framewalk-service")
    assert "calls / min" in tab.texts("h2:has-text('Requests')")[0]
    assert tab.texts("h2:has-text('Latency')") == ["Latency ms"]
    latency = "kubernetes_service_http_latency_ns_percentile"
    query = (
        f"SELECT strftime(time_bucket, '%Y-%m-%d %H:%M'), {latency}.p50 / 1e6, {latency}.p90 / 1e6,"
        f" {latency}.p99 / 1e6 FROM service_minute WHERE service = '{SERVICE}' ORDER BY ALL"
    )
    (panel,) = tab.page.locator(".panel", has_text="Latency").all()
    head, *rows = table_of(tab, panel.get_attribute("id") or "")
    assert head == ["time", "p50 (ms)", "p90 (ms)", "p99 (ms)"]
    expected = ask(store, query)
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for row, truth in zip(rows, expected, strict=True):
        assert [float(one) for one in row[1:]] == pytest.approx(truth[1:], abs=0.001)


def table_of(tab: Tab, panel: str) -> list[list[str]]:
    script = """panel => [...document.querySelectorAll(`#${panel} .numbers tr`)].map(
        row => [...row.cells].map(cell => cell.textContent.trim()))"""
    found: list[list[str]] = tab.page.evaluate(script, panel)
    return found


def test_lists_lead_on(tab: Tab, store: Store) -> None:
    tab.open("dashboards")
    tab.page.get_by_role("link", name="Kubernetes-Services").click()
    tab.wait()
    query = (
        "SELECT service FROM service_minute WHERE kubernetes_service_http_call_cpm IS NOT NULL "
        "GROUP BY service ORDER BY trunc(avg(kubernetes_service_http_call_cpm)) DESC, service"
    )
    (panel,) = tab.page.locator(".panel", has=tab.page.get_by_text("Load", exact=True)).all()
    names = [" ".join(one.split()) for one in panel.locator(".top .name").all_text_contents()]
    assert names == [row[0] for row in ask(store, query)]
    panel.get_by_role("link", name=SERVICE).click()
    tab.wait()
    assert f"#/service?service={SERVICE}&page=framewalk-service" in tab.page.url
    tab.page.get_by_role("link", name="Endpoints", exact=True).click()
    tab.wait()
    tab.page.get_by_role("link", name="GET:/reviews/0", exact=True).click()
    tab.wait()
    assert "#/endpoint" in tab.page.url
    assert "page=framewalk-endpoint" in tab.page.url
    tab.page.get_by_role("link", name="Overview").click()
    tab.wait()
    assert tab.texts("h1") == ["GET:/reviews/0"]


def test_a_map_is_a_picture_and_the_same_as_lists(tab: Tab, store: Store) -> None:
    edge = {"source": "productpage.bookinfo", "dest": SERVICE}
    tab.open("edge", **edge, page="framewalk-service-relation", tab="Topology")
    query = (
        "SELECT DISTINCT source_instance || ' → ' || dest_instance "
        "FROM service_instance_relation_minute "
        f"WHERE source_service = '{edge['source']}' AND dest_service = '{SERVICE}'"
    )
    edges = {row[0] for row in ask(store, query)}
    pods = {pod for one in edges for pod in one.split(" → ")}
    tables = tab.page.locator(".panel:has(.graph) .pair table").all()
    told = "nodes => nodes.map(one => one.querySelector('title').textContent.split('\\n')[0])"
    for kind, truth, table in ((".box", pods, tables[0]), (".edge", edges, tables[1])):
        assert set(tab.page.locator(f".graph a{kind}").evaluate_all(told)) == truth
        listed = table.locator("tbody td:first-child a").all_text_contents()
        assert {" ".join(one.split()) for one in listed} <= truth
        assert listed
    tab.page.locator(".graph a.box").first.click()
    tab.wait()
    assert "#/pod" in tab.page.url


def test_a_page_of_one_entity_asks_for_which(tab: Tab) -> None:
    tab.open("dashboards", page="framewalk-service-relation")
    tab.page.get_by_label("Filter").fill("ratings reviews")
    tab.page.wait_for_url("**filter=ratings**")
    tab.wait()
    assert tab.rows("choices") == [["reviews.bookinfo", "ratings.bookinfo"]]
    tab.page.locator("#choices tbody a").first.click()
    tab.wait()
    assert tab.texts("h1") == ["reviews.bookinfo → ratings.bookinfo"]
    assert tab.page.locator(".chart canvas").count() > 0


def test_a_panel_as_a_file_a_picture_and_a_link(tab: Tab, tmp_path: Path) -> None:
    tab.open("service", service=SERVICE, page="framewalk-service")
    with tab.page.expect_download() as waiting:
        tab.page.locator("#w-0-0-0 .actions button", has_text="CSV").click()
    waiting.value.save_as(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["time_bucket", "all (calls / min)", "succeeded (calls / min)"]
    shown = table_of(tab, "w-0-0-0")[1:]
    assert [row[1:] for row in rows] == [row[1:] for row in shown]
    sizes = {}
    for view, panel in (("service", "w-0-0-0"), ("unknown", "peers"), ("dashboards", "w-0")):
        page = {"service": "framewalk-service", "dashboards": "framewalk-services"}.get(view, "")
        tab.open(view, service=SERVICE, page=page)
        with tab.page.expect_download() as waiting:
            tab.page.locator(f"#{panel} .actions button", has_text="PNG").click()
        assert waiting.value.suggested_filename == f"{panel}.png"
        waiting.value.save_as(tmp_path / f"{panel}.png")
        content = (tmp_path / f"{panel}.png").read_bytes()
        assert content.startswith(PNG)
        sizes[panel] = len(content), int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    # Something is drawn on each.
    assert all(size > 5_000 and width >= 800 for size, width, _ in sizes.values())
    tab.open("service", service=SERVICE, page="framewalk-service", tab="TCP")
    tab.page.locator("#w-0-1-5 .actions a").click()
    tab.wait()
    address = tab.page.url
    assert "panel=w-0-1-5" in address
    tab.page.goto("about:blank")
    tab.page.goto(address)
    tab.wait()
    assert tab.page.locator("#w-0-1-5.named").is_visible()


# Kinds of panels

FEW = """
calls = from(K8SService.*).filter(type == "protocol").cpm();
heat = from(K8SService.protocol.http.latency).filter(type == "protocol").histogram(2, 20);
spread = from(K8SService.protocol.http.latency).filter(type == "protocol").percentile2(10);
"""


def kind(shown: str, title: str, *expressions: str, **more: object) -> dict[str, Any]:
    graph = {"type": shown, **more.pop("graph", {})}  # type: ignore[dict-item]
    widget = {"x": 0, "y": 0, "w": 12, "h": 13, "type": "Widget", "graph": graph, **more}
    return widget | {"widget": {"title": title}, "expressions": list(expressions)}


def test_kinds_of_panels(browser: Browser, tmp_path: Path) -> None:
    """Each shows what the store has; where it cannot, it says why, and the others stand."""
    (tmp_path / "few.oal").write_text(FEW)
    widgets = [
        kind("HeatMap", "Latency (ms)", "heat"),
        kind("Card", "Calls", "avg(calls)", metricConfig=[{"unit": "calls / min"}]),
        kind("Card", "State", "avg(calls)>0", graph={"valueMappings": {"1": "busy"}}),
        kind(
            "Table",
            "Spread%20(ms)",
            "latest(spread)",
            metricConfig=[{"label": "half, most", "labelsIndex": "50, 99"}],
        ),
        kind("Area", "Two", "calls", "calls*2", metricConfig=[{"label": "a", "unit": "x"}, {}]),
        kind("Line", "Wrong", "calls+"),
        kind("Line", "Elsewhere", "k8s_service_pod_total"),
        kind("Line", "Half wrong", "calls", "cals"),
        {"type": "Text", "graph": {"content": "a%20text", "url": "https://example.org/"}},
        {"type": "Log", "x": 0, "y": 0},
    ]
    page = {"layer": "K8S_SERVICE", "entity": "Service", "name": "Kinds", "children": widgets}
    file = tmp_path / "kinds.json"
    file.write_text(json.dumps([{"id": "kinds", "configuration": page}]))
    with Store(tmp_path / "few.duckdb", load_plan(tmp_path / "few.oal")) as store:
        replay_into(store, "bookinfo")
        secure(store.connection)
        of_service = f"FROM service_minute WHERE service = '{SERVICE}' ORDER BY time_bucket"
        with serving_page(store, file) as origin, open_tab(browser, origin) as tab:
            tab.open("service", service=SERVICE, page="kinds")
            assert {name for name, state in tab.panels().items() if state != "done"} == {"w-5"}
            counts = [sum(row[0]) for row in ask(store, f"SELECT map_values(heat) {of_service}")]
            found: dict[str, int] = {}
            for time, _, _, count in table_of(tab, "w-0")[1:]:
                found[time] = found.get(time, 0) + int(count)
            assert list(found.values()) == counts
            calls = [row[0] for row in ask(store, f"SELECT calls {of_service}")]
            mean = int(sum(calls) / len(calls))
            assert tab.texts(".card") == [f"{mean} calls / min", "busy"]
            last = ask(store, f"SELECT spread.p50, spread.p99 {of_service}")[-1]
            rows = dict(tab.rows("w-3"))
            assert (rows["half"], rows["most"]) == tuple(f"{value:g} ms" for value in last)
            assert table_of(tab, "w-4")[0] == ["time", "a (x)", "calls*2"]
            assert [row[1:] for row in table_of(tab, "w-4")[1:]] == [
                [str(one), str(2 * one)] for one in calls
            ]
            assert "line 1" in tab.texts("#w-5 .fault")[0]
            assert "Not from Rover's logs: k8s_service_pod_total" in tab.texts("#w-6")[0]
            assert "[cals] does not exist" in tab.texts("#w-7 .note")[0]
            assert len(table_of(tab, "w-7")) == 1 + len(calls)
            assert tab.texts(".words a") == ["a text"]
            assert "does not keep" in tab.texts("#w-9")[0]
            tab.page.locator("#w-0 .actions button", has_text="SQL").click()
            sql = tab.page.locator("#w-0 .sql pre").text_content()
            assert sql is not None
            assert ask(store, sql)


# Changes


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a file with a page of two panels."""

    def widget(x: int, title: str, expression: str) -> dict[str, Any]:
        shown = {"graph": {"type": "Line", "smooth": True}, "widget": {"title": title}}
        return {"x": x, "y": 0, "w": 12, "h": 13, "type": "Widget", "ours": 1, **shown} | {
            "expressions": [expression],
            "metricConfig": [{"unit": "calls / min", "detailLabel": "kept"}],
        }

    children = [
        widget(0, "One", "kubernetes_service_http_call_cpm"),
        widget(12, "Two", "kubernetes_service_connect_cpm"),
    ]
    page = {"layer": "K8S_SERVICE", "entity": "Service", "name": "Mine", "children": children}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([{"id": "mine", "configuration": page}]))
    return path


def test_a_panel_is_changed_and_stays_so(
    browser: Browser, store: Store, own: Path, tmp_path: Path
) -> None:
    given, edits = own.read_text(), tmp_path / "edits.json"
    with serving_page(store, own, edits=edits) as origin, open_tab(browser, origin) as tab:
        tab.open("service", service=SERVICE, page="mine")
        tab.page.locator("#w-0 .actions button", has_text="Edit").click()
        tab.page.get_by_label("Title").fill("Time until opened")
        tab.page.get_by_label("Kind").select_option("Bar")
        tab.page.get_by_label("Width").select_option("whole")
        field = tab.page.get_by_role("combobox", name="Expression 1")
        field.fill("kubernetes_service_connect_ti")
        assert "kubernetes_service_connect_time" in tab.texts("[role=option]")[0]
        field.press("Enter")
        field.press("End")
        field.type("/1000000")
        tab.page.get_by_label("Unit").fill("ms")
        tab.page.get_by_label("Unit").press("Tab")
        tab.wait()
        # It is tried before it is kept.
        assert tab.texts("#w-0 h2") == ["Time until opened ms"]
        assert not edits.exists()
        tab.page.get_by_role("button", name="Save").click()
        tab.page.wait_for_selector(".editing", state="detached")
        for _ in range(2):
            tab.wait()
            assert tab.texts("#w-0 h2") == ["Time until opened ms"]
            query = (
                "SELECT kubernetes_service_connect_time / 1e6 FROM service_minute "
                f"WHERE service = '{SERVICE}' ORDER BY time_bucket"
            )
            shown = [float(row[1]) for row in table_of(tab, "w-0")[1:]]
            truth = [row[0] for row in ask(store, query) if row[0] is not None]
            assert shown == pytest.approx(truth, abs=0.001)
            tab.page.reload()
        tab.page.locator("#w-0 .actions button", has_text="Edit").click()
        tab.page.get_by_role("button", name="Later").click()
        tab.page.wait_for_selector(".editing", state="detached")
        assert tab.texts(".panel h2") == ["Two calls / min", "Time until opened ms"]
    assert own.read_text() == given
    (saved,) = json.loads(edits.read_text()).values()
    first, second = json.loads(saved)["children"]
    assert (first["x"], second["x"]) == (12, 0)
    assert first["expressions"] == ["kubernetes_service_connect_time/1000000"]
    assert first["graph"] == {"type": "Bar", "smooth": True}
    assert first["metricConfig"] == [{"detailLabel": "kept", "unit": "ms"}]
    assert (first["ours"], first["w"]) == (1, 24)


def test_a_panel_is_added_and_removed(
    browser: Browser, store: Store, own: Path, tmp_path: Path
) -> None:
    edits = tmp_path / "edits.json"
    with serving_page(store, own, edits=edits) as origin, open_tab(browser, origin) as tab:
        tab.open("service", service=SERVICE, page="mine")
        tab.page.get_by_role("button", name="Add a panel").click()
        tab.page.get_by_label("Title").fill("Three")
        field = tab.page.get_by_role("combobox", name="Expression 1")
        field.fill("kubernetes_service_connect_cpm")
        field.press("Escape")
        tab.page.get_by_role("button", name="Save").click()
        tab.page.wait_for_selector(".editing", state="detached")
        tab.page.reload()
        tab.wait()
        assert tab.texts(".panel h2") == ["One calls / min", "Two calls / min", "Three"]
        assert table_of(tab, "w-2")[1:] == table_of(tab, "w-1")[1:] != []
        tab.page.locator("#w-0 .actions button", has_text="Edit").click()
        tab.page.get_by_role("button", name="Remove").click()
        tab.page.get_by_role("button", name="Remove it, really").click()
        tab.page.wait_for_selector(".editing", state="detached")
        tab.wait()
        assert tab.texts(".panel h2") == ["Two calls / min", "Three"]
    (saved,) = json.loads(edits.read_text()).values()
    assert [one["widget"]["title"] for one in json.loads(saved)["children"]] == ["Two", "Three"]


def test_what_is_no_expression_is_not_kept(
    browser: Browser, store: Store, own: Path, tmp_path: Path
) -> None:
    edits = tmp_path / "edits.json"
    with serving_page(store, own, edits=edits) as origin, open_tab(browser, origin) as tab:
        tab.open("service", service=SERVICE, page="mine", edit="w-0")
        field = tab.page.get_by_role("combobox", name="Expression 1")
        for wrong, told in (("avg(", "line 1"), ("kubernetes_service_nope", "does not exist")):
            field.fill(wrong)
            field.press("Escape")
            tab.page.get_by_role("button", name="Save").click()
            tab.page.wait_for_selector(f".editing .fault:has-text('{told}')")
        tab.page.get_by_role("button", name="Cancel").click()
        tab.wait()
        assert tab.texts("#w-0 h2") == ["One calls / min"]
        assert not edits.exists()


def test_where_editing_is_off_nothing_can_be_changed(
    browser: Browser, store: Store, own: Path
) -> None:
    with serving_page(store, own) as origin, open_tab(browser, origin) as tab:
        tab.open("service", service=SERVICE, page="mine", edit="w-0")
        assert tab.texts("#w-0 .actions > *") == ["SQL", "MQE", "CSV", "PNG", "Link"]
        assert tab.page.locator(".editing").count() == 0
        assert tab.page.get_by_role("button", name="Add a panel").count() == 0


def test_without_graphql_it_is_told(browser: Browser, store: Store) -> None:
    with serving(store.connection, store.path) as server, open_tab(browser, url(server)) as tab:
        tab.open("dashboards")
        assert "SW_QUERY" in tab.texts(".fault")[0]
        tab.open("service", service=SERVICE)
        assert set(tab.panels().values()) == {"done"}
        tab.wrong = [one for one in tab.wrong if "404" not in one]


# What SkyWalking ships, over what an unchanged Rover sent


@pytest.mark.long
def test_pages_of_skywalking_over_what_rover_sent(
    browser: Browser, plan: Plan, tmp_path: Path
) -> None:
    with Store(tmp_path / "rover.duckdb", plan) as store:
        replay(find_captures([ROVER / "part1"]), read_entities(ROVER / "cluster.json"), store)
        secure(store.connection)
        with serving_page(store, SKYWALKING) as origin, open_tab(browser, origin) as tab:
            entities = about(store) | {"Service": {"service": "frontend.shop"}}
            pages, _ = read_pages(SKYWALKING)
            empty: list[str] = []
            drawn = 0
            for found in pages:
                if found.page.entity not in VIEWS:
                    continue
                for group, widgets in groups(found.page):
                    params = entities[found.page.entity] | group
                    tab.open(VIEWS[found.page.entity], page=found.id, **params)
                    assert set(tab.panels().values()) <= {"done"}, group
                    assert tab.texts(".fault") == []
                    empty += tab.texts('.panel:has-text("Not from Rover\'s logs") h2')
                    drawn += tab.page.locator(".chart canvas").count()
                    assert len(tab.texts(".panel, .words")) == len(widgets)
            assert len(empty) == 8
            assert drawn > 60
            tab.open("dashboards")
            assert "ProcessRelation" in " ".join(tab.texts("main p"))
            tab.open("service", service="frontend.shop", page="k8s-service-service", tab="TCP")
            assert "NetFilter CPM" in " ".join(tab.texts("h2"))
