"""The engine process as the receiving process keeps it: real processes, one killed or stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from recording import wait_until
from serving import Serving

from framewalk.server.engine.child import EngineChild
from framewalk.server.engine.link import EngineOptions

LONG_S = 60


def options(folder: Path) -> EngineOptions:
    spool = folder / "spool"
    spool.mkdir()
    return EngineOptions(
        spool_folder=spool,
        complete_through="",
        retention_s=3_600,
        budget_bytes=2**30,
        store_path=folder / "metrics.duckdb",
        metrics_ttl_days=7,
        flush_interval_s=0.1,
        entities_paths=(),
        entities_reload_s=0,
        oal_paths=(),
        apdex_path=None,
        sql=None,
        log_format="text",
        log_level="error",
    )


def test_an_engine_that_hangs_is_started_again(tmp_path: Path) -> None:
    engine = EngineChild(options(tmp_path), longest_silence_s=2)

    async def until(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition, LONG_S)

    async def run() -> float:
        running = asyncio.create_task(engine.run())
        await until(lambda: engine.watermark_s)
        before_s = engine.watermark_s
        os.kill(engine.status.pid, signal.SIGSTOP)
        await until(lambda: engine.restarts == 1)
        # What was stored stays stored, whatever the new engine knows yet.
        lag_s = engine.lag_s
        await until(lambda: engine.is_up and engine.watermark_s > before_s + 1)
        await engine.finish(LONG_S)
        await running
        return lag_s

    engine.started_s = 0
    assert asyncio.run(run()) < LONG_S
    assert engine.restarts == 1


def test_a_server_whose_metrics_cannot_be_served_ends_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = Serving(tmp_path, SW_TELEMETRY_PROMETHEUS_PORT=port)
        try:
            assert server.wait() == 1
        finally:
            server.stop(signal.SIGKILL)
    assert server.lines[-1].startswith(f"error: 127.0.0.1:{port}: metrics: address already in use;")
