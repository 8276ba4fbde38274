"""The page in a browser: every view, over a store with something and one with nothing."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import Tab, ask, open_tab
from playwright.sync_api import Browser
from sql_serving import OPTIONS, serving, url
from waiting import wait_until

from framewalk.engine import Plan, Store
from framewalk.queries.reading import secure

pytest_plugins = ["tabs"]

SINCE, UNTIL = "2026-11-02 09:00", "2026-11-02 09:06"
RANGE = f"'{SINCE}', '{UNTIL}'"
EDGE = {"source": "productpage.bookinfo", "dest": "reviews.bookinfo"}
SERVICE = "reviews.bookinfo"
ENDPOINT = "GET:/reviews/0"


VIEWS: dict[str, dict[str, str]] = {
    "start": {},
    "map": {"unknown": "1"},
    "service": {"service": SERVICE},
    "edge": EDGE,
    "endpoint": {"service": SERVICE, "endpoint": ENDPOINT},
    "unknown": {},
    "sql": {"q": f"FROM services({RANGE})"},
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_all_and_says_how(tab: Tab, store: Store, view: str) -> None:
    """Every panel has an answer, and its SQL runs as it stands there."""
    tab.open(view, **VIEWS[view])
    panels = tab.panels()
    assert set(panels.values()) == {"done"}
    for panel in panels:
        tab.page.locator(f"#{panel} .actions button").first.click()
        sql = tab.page.locator(f"#{panel} .sql pre").text_content()
        assert sql is not None
        assert ask(store, sql) is not None
    for width in (390, 1_440, 2_560):
        tab.page.set_viewport_size({"width": width, "height": 900})
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_list_of_the_map_is_what_the_store_says(tab: Tab, store: Store) -> None:
    tab.open("map")
    told = ask(store, f"FROM service_map({RANGE})")
    expected = {f"{row[0]} → {row[1]}": (row[2], row[3]) for row in told if "Unknown" not in row}
    listed = {row[0]: row[1:] for row in tab.rows("edges") if row[1] != "0"}
    assert listed.keys() == expected.keys()
    for edge, (calls, failed, *_) in listed.items():
        assert float(calls) == pytest.approx(expected[edge][0], abs=0.6)
        assert float(failed) == pytest.approx(100 - expected[edge][1], abs=0.06)
    drawn = {title.split(" no HTTP")[0] for title in tab.texts(".edge title")}
    assert {row[0] for row in tab.rows("edges")} == {" ".join(title.split()[:3]) for title in drawn}
    boxes = {label.split(":")[0] for label in attributes(tab, ".box > g[aria-pressed]")}
    assert {row[0] for row in tab.rows("boxes")} <= boxes


def attributes(tab: Tab, selector: str, name: str = "aria-label") -> list[str]:
    return [one.get_attribute(name) for one in tab.page.locator(selector).all()]


def test_namespaces_are_added_up_from_counts(tab: Tab, store: Store) -> None:
    """A closed namespace is its services' counts, and not a mean of their means."""
    tab.open("map", open="none")
    counts: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    query = (
        "SELECT service, kubernetes_service_http_call_cpm, kubernetes_service_http_success_cpm, "
        f"minutes FROM service_between({RANGE}, divide_by := 1) WHERE service <> 'Unknown'"
    )
    minutes = 1
    for service, calls, succeeded, minutes in ask(store, query):  # noqa: B007
        counts[service.rpartition(".")[2]][0] += calls or 0
        counts[service.rpartition(".")[2]][1] += succeeded or 0
    listed = {row[0]: row[1:] for row in tab.rows("boxes")}
    assert listed.keys() == counts.keys()
    for namespace, (calls, succeeded) in counts.items():
        _, rate, failed, _ = listed[namespace]
        assert float(rate) == pytest.approx(calls / minutes, abs=0.6)
        assert float(failed) == pytest.approx(100 * (calls - succeeded) / calls, abs=0.06)
    inside = [
        (calls, calls * (100 - success) / 100)
        for source, dest, calls, success, _ in ask(store, f"FROM service_map({RANGE})")
        if source.endswith(".bookinfo") and dest.endswith(".bookinfo")
    ]
    of_edges = {row[0]: row[1:] for row in tab.rows("edges")}
    calls, failed, *_ = of_edges["bookinfo → bookinfo"]
    assert float(calls) == pytest.approx(sum(one for one, _ in inside), abs=0.6)
    share = 100 * sum(one for _, one in inside) / sum(one for one, _ in inside)
    assert float(failed) == pytest.approx(share, abs=0.06)
    tab.page.get_by_role("button", name="Open namespace bookinfo").press("Enter")
    tab.wait()
    assert "open=bookinfo" in tab.page.url
    assert "reviews.bookinfo" in {row[0] for row in tab.rows("boxes")}


def test_a_chart_has_its_numbers_as_a_table(tab: Tab, store: Store) -> None:
    tab.open("service", service=SERVICE)
    query = (
        "SELECT strftime(time_bucket, '%Y-%m-%d %H:%M'), kubernetes_service_http_call_cpm "
        f"FROM service_minute WHERE service = '{SERVICE}' ORDER BY ALL"
    )
    expected = [[time, str(calls)] for time, calls in ask(store, query)]
    assert [row[:2] for row in tab.rows("requests") if len(row) == 3] == expected
    tab.page.get_by_role("button", name="UTC").click()
    assert "tz=local" in tab.page.url


EARLIER = {"from": "2026-11-02T09:03", "to": "2026-11-02T09:06", "vs": "2026-11-02T09:01"}


def test_a_range_is_compared_with_an_earlier_one(tab: Tab, store: Store) -> None:
    """Numbers, rows and lines stand beside those of the earlier time, which the address says."""
    tab.open("service", service=SERVICE, **EARLIER)
    before = "'2026-11-02 09:01', '2026-11-02 09:04'"
    for name in ("endpoint", "instance"):
        told = {
            row[1]: row[2]
            for row in ask(store, f"FROM {name}s({before}, of_service := '{SERVICE}')")
        }
        panel = {"endpoint": "endpoints", "instance": "pods"}[name]
        rows = tab.rows(panel)
        assert rows
        for one, calls, *_ in rows:
            was = calls.split("was ")[1]
            shown = float(was) if one in told else None
            assert shown == pytest.approx(told.get(one), abs=0.6)
    ((calls, p99_ms),) = ask(
        store, f"SELECT calls_per_minute, p99_ms FROM services({before}, of_service := '{SERVICE}')"
    )
    tiles = tab.texts("#totals .tiles .before")
    assert float(tiles[0].removeprefix("was ").removesuffix("/min")) == pytest.approx(
        calls, abs=0.6
    )
    assert float(tiles[3].split()[1]) == pytest.approx(p99_ms, abs=0.06)
    lines = ask(
        store,
        "SELECT strftime(time_bucket + INTERVAL 2 MINUTE, '%Y-%m-%d %H:%M'), "
        f"kubernetes_service_http_call_cpm FROM service_minute WHERE service = '{SERVICE}' "
        "AND time_bucket >= '2026-11-02 09:01' AND time_bucket < '2026-11-02 09:04' ORDER BY ALL",
    )
    head = tab.texts("#requests .numbers thead th")
    assert head == ["time", "all", "failed", "all, before", "failed, before"]
    drawn = [(row[0], row[3]) for row in tab.rows("requests") if len(row) == len(head)]
    assert drawn == [(time, str(one)) for time, one in lines]
    tab.page.locator("#totals .actions button").first.click()
    tab.page.wait_for_selector("#totals .sql pre")
    for sql in tab.texts("#totals .sql pre"):
        assert ask(store, sql)
    tab.page.locator(".compare select").select_option("no comparison")
    tab.wait()
    assert "vs=" not in tab.page.url
    assert tab.texts(".before") == []


@pytest.mark.parametrize("view", ["start", "edge"])
def test_every_number_of_a_view_has_one_of_before(tab: Tab, view: str) -> None:
    tab.open(view, **VIEWS[view], **EARLIER)
    assert set(tab.panels().values()) == {"done"}
    # What is about no range is not compared, nor what compares already.
    apart = {"start": {"health", "changes"}, "edge": {"pod-map"}}[view]
    for panel in tab.panels().keys() - apart:
        assert "before" in str(tab.page.locator(f"#{panel}").inner_html()), panel


def test_pairs_of_pods_are_a_map_of_heat(tab: Tab) -> None:
    tab.open("edge", **EDGE, heat="p99_ms")
    script = """() => [...document.querySelectorAll("#pod-map tbody td:not(.none)")].map(
        field => [field.title, field.textContent, field.style.background])"""
    fields = tab.page.evaluate(script)
    listed = {f"{row[0]} → {row[1]}": row[4] for row in tab.rows("pods")}
    assert {title.split("\n")[0]: text for title, text, _ in fields} == listed
    shares = [int(re.findall(r"(\d+)%", style)[0]) for *_, style in fields]
    values = [float(text.replace(",", "")) for _, text, _ in fields]
    assert shares[values.index(max(values))] == max(shares) == 80
    tab.page.locator("#pod-map .choices a", has_text="Failed").click()
    tab.wait()
    assert "heat=failed_percent" in tab.page.url


def test_rows_as_a_file(tab: Tab, store: Store, tmp_path: Path) -> None:
    tab.open("sql", q=f"SELECT 'a,\"b\"' AS text, NULL AS nothing, * FROM services({RANGE})")
    with tab.page.expect_download() as waiting:
        tab.page.locator("#result .actions button", has_text="CSV").click()
    waiting.value.save_as(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    assert head[:3] == ["text", "nothing", "service"]
    assert [row[2] for row in rows] == [row[0] for row in ask(store, f"FROM services({RANGE})")]
    assert {tuple(row[:2]) for row in rows} == {('a,"b"', "")}


def test_an_error_is_told_where_it_is(tab: Tab) -> None:
    tab.open("sql", q="FROM nowhere")
    assert "nowhere" in tab.texts("#result .fault")[0]
    tab.wrong = [one for one in tab.wrong if "400" not in one]


def test_the_address_is_the_state(tab: Tab) -> None:
    given = {
        "from": "2026-11-02T09:01",
        "to": "2026-11-02T09:04",
        "worst-services.sort": "p99_ms:up",
    }
    tab.open("start", **given)
    before = tab.texts("main")
    assert re.search("09:01 . 09:04", tab.texts(".range")[0])
    times = [float(row[3].replace(",", "")) for row in tab.rows("worst-services")]
    assert times == sorted(times)
    tab.page.reload()
    tab.wait()
    assert tab.texts("main") == before
    tab.page.get_by_role("link", name="reviews.bookinfo", exact=True).first.click()
    tab.wait()
    assert "from=2026-11-02T09:01" in tab.page.url
    tab.page.go_back()
    tab.wait()
    assert tab.texts("main") == before


def test_keys_are_enough(tab: Tab) -> None:
    tab.open("map")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "content"
    box = tab.page.get_by_role("button", name="reviews.bookinfo:")
    box.press("Enter")
    tab.wait()
    assert box.get_attribute("aria-pressed") == "true"
    assert "chosen=reviews.bookinfo" in tab.page.url
    assert all("reviews.bookinfo" in row[0] for row in tab.rows("edges"))
    tab.page.get_by_role("link", name="Open this service").press("Enter")
    tab.wait()
    assert tab.texts("h1") == ["reviews.bookinfo"]


def test_a_filter_is_asked_of_the_store(tab: Tab) -> None:
    tab.open("map")
    tab.page.get_by_label("Filter").fill("ratings -mysqldb")
    tab.page.wait_for_url(re.compile("filter="))
    tab.wait()
    assert [row[0] for row in tab.rows("edges")] == ["reviews.bookinfo → ratings.bookinfo"]
    assert any("contains(lower(source_service), 'ratings')" in query for query in tab.asked)


def test_it_follows_new_minutes_but_not_while_somebody_reads(tab: Tab) -> None:
    tab.page.clock.install(time="2026-11-02T09:06:30Z")
    tab.open("start")
    assert "live" in tab.texts(".fresh")[0]
    tab.asked.clear()
    tab.page.clock.run_for(20_500)
    tab.wait()
    assert tab.asked.count("FROM time_range") == 2
    tab.page.mouse.move(400, 400)
    tab.page.mouse.move(420, 400)
    tab.asked.clear()
    tab.page.clock.run_for(10_500)
    assert tab.asked == []
    assert "waits while you read" in tab.texts(".fresh")[0]


def test_the_token_is_asked_for_once(browser: Browser, store: Store) -> None:
    options = replace(OPTIONS, token="secret")  # noqa: S106
    with serving(store.connection, store.path, options) as server:
        with open_tab(browser, url(server)) as tab:
            tab.page.goto(f"{url(server)}/ui/#/unknown")
            for token in ("wrong", "secret"):
                tab.page.get_by_label("Token").fill(token)
                tab.page.get_by_role("button", name="Go on").click()
                tab.wait()
            tab.page.wait_for_selector("#peers tbody tr")
            tab.page.reload()
            tab.page.wait_for_selector("#peers tbody tr")
            tab.wrong = [one for one in tab.wrong if "401" not in one]
        with open_tab(browser, url(server)) as other:
            other.page.goto(f"{url(server)}/ui/")
            other.page.wait_for_selector("input[name=token]")
            other.wrong = [one for one in other.wrong if "401" not in one]


def test_an_empty_store_says_so(
    browser: Browser, plan: Plan, empty_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "empty.duckdb"
    shutil.copy(empty_store, path)
    with Store(path, plan) as empty:
        secure(empty.connection)
        with (
            serving(empty.connection, path) as server,
            open_tab(browser, url(server)) as tab,
        ):
            for view, params in VIEWS.items():
                tab.open(view, **params)
                if view != "sql":
                    assert tab.texts("h1") == ["Nothing is stored yet"]


def test_a_server_that_is_gone_is_told_and_found_again(browser: Browser, store: Store) -> None:
    with serving(store.connection, store.path) as first, open_tab(browser, url(first)) as tab:
        tab.page.clock.install()
        tab.open("unknown")
        first.stop()
        tab.page.get_by_role("link", name="Start").click()
        tab.wait()
        assert "does not answer" in tab.texts(".fresh")[0]
        assert "failed" in tab.panels().values()
        with serving(store.connection, store.path, replace(OPTIONS, port=first.port)):

            def is_back() -> bool:
                tab.page.clock.run_for(10_500)
                return set(tab.panels().values()) == {"done"}

            wait_until(is_back)
        tab.wrong = [one for one in tab.wrong if "ERR_CONNECTION_REFUSED" not in one]


DIGITS = """async values => {
    const { digits } = await import("./core/format.js");
    return values.map(digits);
}"""


def test_numbers_keep_their_size_and_lose_no_digit_that_counts(tab: Tab) -> None:
    tab.open("sql")
    values = [0, 0.5, 10, 250, 4_000, 30_000_000, 25_000_000, 1_500_000, 20_000_000_000]
    shown = ["0", "0.5", "10", "250", "4,000", "30M", "25M", "1.5M", "20G"]
    assert tab.page.evaluate(DIGITS, values) == shown


LAYOUT = """async ([boxes, edges]) => {
    const { layout } = await import("./graph/layout.js");
    const shown = ({ boxes, groups, width, height }) =>
        [[...boxes.values()].sort((a, b) => (a.id < b.id ? -1 : 1)), groups, width, height];
    return [shown(layout(boxes, edges)), shown(layout(boxes.toReversed(), edges.toReversed()))];
}"""


@pytest.mark.parametrize("services", [1, 7, 1_000])
def test_boxes_have_places_of_their_own_whatever_their_order(tab: Tab, services: int) -> None:
    tab.open("sql")
    boxes = [{"id": f"s{i}.n{i % 20}", "group": f"n{i % 20}"} for i in range(services)]
    edges = [
        {"source": boxes[i % services]["id"], "dest": boxes[(i * i + 7 * i + 1) % services]["id"]}
        for i in range(3 * services)
    ]
    first, second = tab.page.evaluate(LAYOUT, [boxes, edges])
    assert first == second
    placed, groups, width, height = first
    assert len(placed) == services
    for things in (placed, groups):
        things.sort(key=lambda one: one["x"])
        for at, one in enumerate(things):
            assert 0 <= one["x"] <= width - one["width"]
            assert 0 <= one["y"] <= height - one["height"]
            for other in things[at + 1 :]:
                if other["x"] >= one["x"] + one["width"]:
                    break
                assert abs(one["y"] - other["y"]) >= min(one["height"], other["height"])
    frames = {one["id"]: one for one in groups}
    for box in placed:
        frame = frames[box["id"].partition(".")[2]]
        assert frame["x"] < box["x"] < frame["x"] + frame["width"] - box["width"]
        assert frame["y"] < box["y"] < frame["y"] + frame["height"] - box["height"]


# The browser's own geometry of the paths as they are written.
THROUGH = """async ([boxes, edges]) => {
    const { layout } = await import("./graph/layout.js");
    const { pathOf, wayKey } = await import("./graph/routing.js");
    const picture = layout(boxes, edges);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const isIn = (box, { x, y }) =>
        x > box.x + 1 && x < box.x + box.width - 1 && y > box.y + 1 && y < box.y + box.height - 1;
    const found = [];
    for (const { source, dest } of edges) {
        path.setAttribute("d", pathOf(picture.routes.get(wayKey(source, dest))));
        const length = path.getTotalLength();
        const [from, to] = [picture.boxes.get(source), picture.boxes.get(dest)];
        const [first, last] = [path.getPointAtLength(0), path.getPointAtLength(length)];
        const far = Math.hypot(first.x - from.x - from.width, first.y - from.y - from.height / 2)
            + Math.hypot(last.x - to.x, last.y - to.y - to.height / 2);
        if (far > 2) found.push([source, dest, "does not reach them"]);
        for (let at = 0; at <= length; at += 8) {
            const point = path.getPointAtLength(at);
            const box = [...picture.boxes.values()].find((one) => isIn(one, point));
            if (box) { found.push([source, dest, box.id]); break; }
        }
    }
    return found;
}"""


@pytest.mark.parametrize(("services", "namespaces"), [(8, 1), (14, 4), (40, 5), (20, 20)])
def test_no_edge_passes_behind_a_box(tab: Tab, services: int, namespaces: int) -> None:
    """Chains, leaps over several columns, circles, and edges to other namespaces."""
    tab.open("sql")
    names = [f"s{i}.n{i % namespaces}" for i in range(services)]
    group = "" if namespaces == services else "n"
    boxes = [{"id": one, "group": group and one.partition(".")[2]} for one in names]
    pairs = {(i, (i * i + 3 * i + 1) % services) for i in range(services)}
    pairs |= {(i, i + 1) for i in range(services - 1)} | {(0, services - 1), (services - 1, 2)}
    edges = [{"source": names[i], "dest": names[k]} for i, k in sorted(pairs) if i != k]
    assert tab.page.evaluate(THROUGH, [boxes, edges]) == []


def test_a_picture_of_the_page(tab: Tab, tmp_path: Path) -> None:
    """With FRAMEWALK_PICTURES it is the one that the documentation shows: `make screenshot`."""
    folder = Path(os.environ.get("FRAMEWALK_PICTURES", tmp_path))
    tab.page.set_viewport_size({"width": 1_180, "height": 740})
    tab.open("map")
    tab.page.screenshot(path=folder / "page.png", animations="disabled")
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
