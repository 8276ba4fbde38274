"""What the page costs a browser and a server, over a cluster of a thousand services.

    python benchmarks/page_in_browser.py build/large/hour.duckdb --json page.json

Serves the store with `framewalk ui` and opens its views in a Chromium that is there, each several
times in a tab of its own, after once to warm the server. Told are medians: the seconds until a view
is drawn, the CPU of the browser's main thread for it (`TaskDuration` of the DevTools protocol), and
the server's CPU; and of moving the map, zooming it and filtering it the longest time between two
frames, and how many frames came later than a thirtieth of a second after the one before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from frame.server import cpu_s, serving_store
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from frame.server import Serving
    from playwright.sync_api import Browser, Page

CHROMIUM: Final = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
LATE_MS: Final = 1000 / 30
_DEADLINE_MS: Final = 120_000
_STEPS: Final = 60
# Frames as the page sees them, until it is told to stop.
_WATCH: Final = """() => {
  window.frames = [];
  window.watching = true;
  let last = performance.now();
  const next = (now) => {
    window.frames.push(now - last);
    last = now;
    if (window.watching) requestAnimationFrame(next);
  };
  requestAnimationFrame((now) => { last = now; requestAnimationFrame(next); });
}"""


@dataclass(frozen=True)
class Opened:
    """What a view took, in seconds."""

    view: str
    panels: int
    drawn_s: float
    main_thread_s: float
    server_cpu_s: float


@dataclass(frozen=True)
class Moved:
    """The frames while something was done to the map."""

    what: str
    frames: int
    median_ms: float
    longest_ms: float
    late: int
    main_thread_s: float


class Tab:
    """A tab over a served store, with the browser's own account of its main thread."""

    def __init__(self, browser: Browser, serving: Serving) -> None:
        context = browser.new_context(viewport={"width": 1_440, "height": 900})
        self.page: Page = context.new_page()
        self.page.set_default_timeout(_DEADLINE_MS)
        self._origin = f"http://127.0.0.1:{serving.ports['sql']}"
        self._protocol = context.new_cdp_session(self.page)
        self._protocol.send("Performance.enable")

    def open(self, address: str) -> None:
        """Open a view of the page and wait until it is drawn."""
        self.page.goto(f"{self._origin}/ui/#/{address}")
        self.wait()

    def wait(self) -> None:
        """Wait until all that was asked is answered and drawn."""
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        )
        self.page.wait_for_selector("body[data-ready=true]", state="attached")

    def main_thread_s(self) -> float:
        """Return what the tab's main thread has worked until now."""
        told = self._protocol.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in told if one["name"] == "TaskDuration")

    def close(self) -> None:
        """Close it, and all it remembers."""
        self.page.context.close()


def main() -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store", type=Path, help="of benchmarks/large_cluster.py store")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write what was measured")
    arguments = parser.parse_args()
    with serving_store(arguments.store.resolve()) as serving, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=arguments.chromium, args=list(CHROMIUM))
        views = _views(browser, serving)
        opened = [
            _opened(browser, serving, view, address, arguments.rounds)
            for view, address in views.items()
        ]
        moved = list(_moved(browser, serving))
        browser.close()
    print("view                panels   drawn s   main thread s   server CPU s")
    for one in opened:
        print(
            f"{one.view:18}{one.panels:8}{one.drawn_s:10.2f}{one.main_thread_s:16.2f}{one.server_cpu_s:15.3f}"
        )
    print("\nmap, while           frames   median ms   longest ms   late   main thread s")
    for two in moved:
        print(
            f"{two.what:18}{two.frames:9}{two.median_ms:12.1f}{two.longest_ms:13.1f}"
            f"{two.late:7}{two.main_thread_s:16.2f}"
        )
    if arguments.json:
        told = {"opened": [asdict(one) for one in opened], "moved": [asdict(one) for one in moved]}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


def _views(browser: Browser, serving: Serving) -> dict[str, str]:
    """Return what is opened: of services and edges those with the most calls."""
    tab = Tab(browser, serving)
    tab.open("map?open=*")
    ends = tab.page.locator("#edges tbody tr:first-child td:first-child a").all_text_contents()
    source, dest = (one.strip() for one in ends)
    tab.close()
    return {
        "start": "start",
        "map": "map",
        "map, all services": "map?open=*",
        "service": f"service?service={dest}",
        "service, panels": f"service?service={dest}&page=framewalk-service",
        "edge": f"edge?source={source}&dest={dest}",
    }


def _opened(browser: Browser, serving: Serving, view: str, address: str, rounds: int) -> Opened:
    found: list[tuple[float, float, float]] = []
    panels = 0
    for _ in range(rounds + 1):
        tab = Tab(browser, serving)
        before_s, began_s = cpu_s(serving.process), time.perf_counter()
        tab.open(address)
        drawn_s = time.perf_counter() - began_s
        found.append((drawn_s, tab.main_thread_s(), cpu_s(serving.process) - before_s))
        panels = tab.page.locator(".panel[data-state]").count()
        tab.close()
    return Opened(view, panels, *(statistics.median(one) for one in zip(*found[1:], strict=True)))


def _moved(browser: Browser, serving: Serving) -> Iterator[Moved]:
    tab = Tab(browser, serving)
    tab.open("map?open=*")
    tab.page.wait_for_timeout(2_000)
    mouse = tab.page.mouse
    box = tab.page.locator(".picture svg").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def pan() -> None:
        mouse.move(x, y)
        mouse.down()
        for step in range(_STEPS):
            mouse.move(x + 4 * step, y + 2 * step)
        mouse.up()

    def zoom() -> None:
        mouse.move(x, y)
        for step in range(_STEPS):
            mouse.wheel(0, -60 if step < _STEPS // 2 else 60)

    def filter_() -> None:
        tab.page.get_by_label("Filter").press_sequentially("account", delay=120)
        tab.page.wait_for_url("**filter=account**")
        tab.wait()

    actions: Sequence[tuple[str, Callable[[], None]]] = (
        ("moving", pan),
        ("zooming", zoom),
        ("moving again", pan),
        ("filtering", filter_),
    )
    for what, act in actions:
        before_s = tab.main_thread_s()
        tab.page.evaluate(_WATCH)
        act()
        frames: Any = tab.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => "
            "{ window.watching = false; done(window.frames); }))"
        )
        late = sum(one > LATE_MS for one in frames)
        yield Moved(
            what,
            len(frames),
            statistics.median(frames),
            max(frames),
            late,
            tab.main_thread_s() - before_s,
        )
    tab.close()


if __name__ == "__main__":
    sys.exit(main())
