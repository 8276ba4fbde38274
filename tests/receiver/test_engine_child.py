"""The engine process as the receiving process keeps it: real processes, one killed or stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from engine_options import engine_options
from recording import stream, wait_until
from serving import Serving

from framewalk.engine import Store
from framewalk.engine.captures.format import captures_in
from framewalk.engine.oal.plan import Plan
from framewalk.receiver.spool import Spool, SpoolOptions
from framewalk.server.engine.child import EngineChild
from framewalk.server.engine.link import EngineOptions

LONG_S = 300


def options(folder: Path) -> EngineOptions:
    (folder / "spool").mkdir()
    return engine_options(folder, flush_interval_s=0.1)


def test_an_engine_that_hangs_is_started_again(tmp_path: Path) -> None:
    engine = EngineChild(options(tmp_path), longest_silence_s=5)

    async def until(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, condition, LONG_S)

    async def run() -> float:
        running = asyncio.create_task(engine.run())
        await until(lambda: engine.watermark_s)
        before_s = engine.watermark_s
        os.kill(engine.status.pid, signal.SIGSTOP)
        await until(lambda: engine.restarts)
        # What was stored stays stored, whatever the new engine knows yet.
        lag_s = engine.lag_s
        await until(lambda: engine.is_up and engine.watermark_s > before_s + 1)
        await engine.finish(LONG_S)
        await running
        return lag_s

    engine.started_s = 0
    assert asyncio.run(run()) < LONG_S


def test_a_server_whose_metrics_cannot_be_served_ends_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Serving(tmp_path, SW_TELEMETRY_PROMETHEUS_PORT=port) as server:
            assert server.wait() == 1
    assert server.lines[-1].startswith(f"error: 127.0.0.1:{port}: metrics: address already in use;")


def test_a_stop_passes_over_no_torn_tail(tmp_path: Path, plan: Plan) -> None:
    given = options(tmp_path)
    spool = Spool(SpoolOptions(given.spool_folder))
    spool.append(stream("whole"), range(5)).result(LONG_S)
    (path,) = captures_in(given.spool_folder)
    size_bytes = path.stat().st_size
    spool.append(stream("torn"), range(5)).result(LONG_S)
    os.truncate(path, (size_bytes + path.stat().st_size) // 2)
    engine = EngineChild(given)

    async def run() -> None:
        running = asyncio.create_task(engine.run())
        await asyncio.to_thread(wait_until, lambda: engine.status.messages, LONG_S)
        await engine.finish(LONG_S)
        await running

    asyncio.run(run())
    spool.close()
    with Store(given.store_path, plan) as store:
        sql = "SELECT name FROM internal.counters WHERE name = 'damaged_bytes'"
        assert store.query(sql).fetchall() == []
