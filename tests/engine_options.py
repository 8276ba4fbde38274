"""What engines of tests work on, where nothing else is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from framewalk.server.engine.link import EngineOptions


def engine_options(folder: Path, **given: Any) -> EngineOptions:  # noqa: ANN401 - of several types
    """Return options with everything in a folder; `given` ones replace them."""
    usual: dict[str, Any] = {
        "spool_folder": folder / "spool",
        "complete_through": "",
        "retention_s": 3_600,
        "budget_bytes": 2**30,
        "store_path": folder / "metrics.duckdb",
        "minute_ttl_days": 7,
        "hour_ttl_days": 7,
        "day_ttl_days": 7,
        "flush_interval_s": 5,
        "max_ahead_s": 300,
        "entities_paths": (),
        "entities_reload_s": 0,
        "name_wait_s": 0,
        "oal_paths": (),
        "apdex_path": None,
        "sql": None,
        "log_format": "text",
        "log_level": "error",
    }
    return EngineOptions(**usual | given)
