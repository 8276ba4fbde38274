"""The page over what an unchanged Rover sent, and over a cluster of a thousand services."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from browsing import open_tab, serving_page
from playwright.sync_api import Browser
from sql_serving import serving, url

from framewalk.engine import Plan, Store, open_for_reading, read_entities, replay
from framewalk.engine.captures.format import find_captures
from framewalk.queries.reading import secure

pytest_plugins = ["tabs"]

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
ROVER = ROOT / "tests" / "rover"
SERVICES = 1_000


def test_what_rover_sent_is_shown_in_every_view(
    browser: Browser, plan: Plan, tmp_path: Path
) -> None:
    with Store(tmp_path / "rover.duckdb", plan) as store:
        entities = read_entities(ROVER / "cluster.json")
        replay(find_captures([ROVER / "part1"]), entities, store)
        secure(store.connection)
        with serving_page(store) as address, open_tab(browser, address) as tab:
            edge = {"source": "loadgen.shop", "dest": "frontend.shop"}
            for view, params in {
                "start": {},
                "map": {"unknown": "1"},
                "service": {"service": "frontend.shop"},
                "endpoint": {"service": "frontend.shop", "endpoint": "GET:/api/items"},
                "edge": edge,
                "unknown": {},
            }.items():
                tab.open(view, **params)
                assert set(tab.panels().values()) == {"done"}, view
            tab.open("map")
            assert "loadgen.shop → frontend.shop" in {row[0] for row in tab.rows("edges")}
            tab.open("edge", **edge)
            layers = {row[0] for row in tab.rows("layers")}
            assert len(layers) == 4
            tab.page.locator("#pods tbody a").first.click()
            tab.wait()
            assert "#/pod" in tab.page.url
            assert set(tab.panels().values()) == {"done"}


def test_a_thousand_services(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "large.duckdb"
    making = ROOT / "benchmarks" / "large_cluster.py"
    options = ["--services", str(SERVICES), "--minutes", "1", "--variants", "1"]
    command = [sys.executable, making, "store", *options, "--output", path]
    subprocess.run(command, check=True, capture_output=True)
    connection = open_for_reading(path)
    secure(connection)
    with serving(connection, path) as server, open_tab(browser, url(server)) as tab:
        tab.open("start")
        assert set(tab.panels().values()) == {"done"}
        tab.open("map", **{"boxes.rows": "all"})
        namespaces = {row[0] for row in tab.rows("boxes")}
        assert 1 < len(namespaces) == tab.page.locator(".box").count() < 100
        tab.open("map", open="*")
        assert tab.page.locator(".box").count() == SERVICES
        (note,) = tab.texts(".map .note")
        assert "3,000 edges with the most calls" in note
        tab.page.get_by_label("Filter").fill("account-api")
        tab.page.wait_for_url("**filter=account-api**")
        tab.wait()
        assert 0 < tab.page.locator(".box").count() < SERVICES
        assert all("account-api" in row[0] for row in tab.rows("edges"))
    connection.close()
