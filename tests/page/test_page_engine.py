"""The page while the engine of `framewalk serve` is dead, and once it is back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from browsing import open_tab
from playwright.sync_api import Browser
from prepared import COMMAND
from processes import ending, free_port
from sql_serving import replay_into
from waiting import wait_until

from framewalk.engine import Plan, Store

pytest_plugins = ["tabs"]

EDGE = {"source": "productpage.bookinfo", "dest": "reviews.bookinfo"}
ENDPOINT = {"service": "reviews.bookinfo", "endpoint": "GET:/reviews/0"}
VIEWS: dict[str, dict[str, str]] = {
    "start": {},
    "map": {},
    "service": {"service": "reviews.bookinfo"},
    "pod": {"service": "productpage.bookinfo", "instance": "productpage-v1-qcng2n4gf-9f4h5"},
    "edge": EDGE,
    "endpoint": ENDPOINT,
    "dashboards": {},
    "unknown": {},
    "sql": {"q": "SELECT 42 AS answer"},
}


# Another range than before, so that nothing is known of it already.
UNSEEN = {"from": "2026-11-02T09:01", "to": "2026-11-02T09:05"}


@pytest.fixture
def store(browser: Browser, plan: Plan, empty_store: Path, tmp_path: Path) -> Path:
    assert browser, "nothing is replayed where there is none"
    path = tmp_path / "metrics.duckdb"
    shutil.copy(empty_store, path)
    with Store(path, plan) as opened:
        replay_into(opened, "bookinfo")
    return path


def engine_of(process: int) -> int | None:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else None


def test_a_dead_engine_is_told_in_every_view_and_found_again(
    browser: Browser, store: Path, tmp_path: Path
) -> None:
    """Its parent is held, so that no other engine is started until all views were seen."""
    port = free_port()
    settings = {
        "SW_CORE_GRPC_HOST": "127.0.0.1",
        "SW_TELEMETRY": "none",
        "SW_CORE_REST_PORT": str(free_port()),
        "SW_PROMQL": "-",
        "SW_CORE_METRICS_DATA_TTL": "36500",
        "FRAMEWALK_SQL_LISTEN_PORT": str(port),
    }
    command = [COMMAND, "serve", "--port", "0", "--spool", tmp_path / "spool", "--store", store]
    with ending(subprocess.Popen(command, env=os.environ | settings)) as server:
        origin = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(origin))
        with open_tab(browser, origin) as tab:
            tab.open("start")
            assert set(tab.panels().values()) == {"done"}
            engine = engine_of(server.pid)
            assert engine is not None
            server.send_signal(signal.SIGSTOP)
            try:
                os.kill(engine, signal.SIGKILL)
                wait_until(lambda: not _answers(origin))
                for view, params in VIEWS.items():
                    tab.open(view, **UNSEEN, **params)
                    assert tab.texts(".fresh") == ["The server does not answer"], view
                    assert "it may be starting again" in tab.texts(".fault")[0], view
            finally:
                server.send_signal(signal.SIGCONT)
            wait_until(lambda: set(tab.panels().values()) == {"done"} and not tab.texts(".fault"))
            assert engine_of(server.pid) != engine
            for view, params in VIEWS.items():
                tab.open(view, **params)
                assert set(tab.panels().values()) <= {"done"}, view
                assert not tab.texts(".fault"), view
                assert "does not answer" not in tab.texts(".fresh")[0], view
            tab.wrong = [one for one in tab.wrong if "ERR_CONNECTION" not in one]
        server.terminate()


def _answers(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/ui/").is_success
    except httpx.TransportError:
        return False
