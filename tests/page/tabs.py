"""A browser, and a page in it over the store of the bookinfo capture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Tab, open_browser, open_tab, serving_page
from playwright.sync_api import Browser
from sql_serving import replay_into

from framewalk.engine import Plan, Store
from framewalk.queries.reading import secure


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as started:
        yield started


@pytest.fixture(scope="module")
def store(
    browser: Browser, plan: Plan, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    assert browser, "nothing is replayed where there is none"
    path = tmp_path_factory.mktemp("page") / "store.duckdb"
    shutil.copy(empty_store, path)
    with Store(path, plan) as opened:
        replay_into(opened, "bookinfo")
        secure(opened.connection)
        yield opened


@pytest.fixture(scope="module")
def origin(store: Store) -> Iterator[str]:
    with serving_page(store) as address:
        yield address


@pytest.fixture
def tab(browser: Browser, origin: str) -> Iterator[Tab]:
    with open_tab(browser, origin) as opened:
        yield opened
