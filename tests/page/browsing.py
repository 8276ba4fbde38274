"""A browser that is there, pages in it that tell what goes wrong, and served stores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from graphql_serving import OPTIONS as GRAPHQL
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from sql_serving import OPTIONS
from waiting import DEADLINE_S

from framewalk.engine import Store
from framewalk.queries.protocols import Protocols, served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_DEADLINE_MS = DEADLINE_S * 1_000


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser of this machine; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page of ours in the browser; `wrong` is what a person would find in its console."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(_DEADLINE_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(f"raised: {error}"))
        self.page.on("request", self._sent)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(f"{message.type}: {message.text} {message.location}")

    def _sent(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "blob:", "data:")):
            self.wrong.append(f"asked elsewhere: {request.url}")
        if request.method == "POST":
            self.asked.append(request.post_data_json["query"])

    def open(self, view: str, **params: str) -> None:
        """Open a view, and wait until it is drawn."""
        query = "&".join(f"{name}={quote(value)}" for name, value in params.items())
        self.page.goto(f"{self.origin}/ui/#/{view}{query and f'?{query}'}")
        self.wait()

    def wait(self) -> None:
        """Wait until all that was asked is answered and drawn."""
        # An address that was changed is told of later; before that the page is ready still.
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        )
        self.page.wait_for_selector("body[data-ready=true]", state="attached")

    def texts(self, selector: str) -> list[str]:
        """Return what elements say."""
        return [" ".join(text.split()) for text in self.page.locator(selector).all_text_contents()]

    def rows(self, panel: str) -> list[list[str]]:
        """Return the cells of a panel's table, hidden or not."""
        script = """panel => [...document.querySelectorAll(`#${panel} tbody tr`)].map(
            row => [...row.cells].map(cell => cell.textContent.replace(/\\s+/g, " ").trim()))"""
        found: list[list[str]] = self.page.evaluate(script, panel)
        return found

    def panels(self) -> dict[str, str]:
        """Return the panels that ask something, with their states, once none waits any more.

        A panel may ask only after others were answered, and a slow machine draws them in between.
        """
        settled = "() => !document.querySelector('.panel[data-state=pending]')"
        self.page.wait_for_function(settled)
        script = """() => Object.fromEntries([...document.querySelectorAll(".panel[data-state]")]
            .map(panel => [panel.id, panel.dataset.state]))"""
        found: dict[str, str] = self.page.evaluate(script)
        return found


@contextmanager
def open_tab(browser: Browser, origin: str) -> Iterator[Tab]:
    """Open a page in a context of its own; whatever its console said fails the test."""
    context = browser.new_context(viewport={"width": 1_440, "height": 900})
    tab = Tab(context.new_page(), origin)
    yield tab
    context.close()
    assert tab.wrong == []


@contextmanager
def serving_page(store: Store, *paths: Path, edits: Path | None = None) -> Iterator[str]:
    """Serve a store on one port, as `framewalk ui` does, and give its address."""
    sql = replace(OPTIONS, concurrent_queries=4, is_announced=False)
    graphql = replace(GRAPHQL, template_paths=paths, template_edits=edits)
    protocols = Protocols(sql=sql, graphql=graphql, has_one_port=True)
    with served(store.connection, store.path, protocols) as found:
        assert set(found.ports) == {"SQL"}
        yield f"http://127.0.0.1:{found.ports['SQL']}"


def ask(store: Store, query: str) -> list[Any]:
    """Return the rows of a query."""
    return store.connection.cursor().execute(query).fetchall()
