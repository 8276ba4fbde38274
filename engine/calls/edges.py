"""Calls -> who called whom for what: a row for each relation between endpoints."""

from __future__ import annotations

from typing import Final

import polars as pl

from framewalk.engine.calls.pairing import OBSERVED_BY
from framewalk.engine.calls.sources import DERIVATION

_KEYS: Final = ("source_service", "source_endpoint", "dest_service", "dest_endpoint", DERIVATION)
_NS_PER_MS: Final = 1e6
_FIRST_FAILURE: Final = 500


def edges_of(calls: pl.DataFrame) -> pl.DataFrame:
    """Return the relations of calls (as `calls_of` gives them), those with the most calls first.

    Columns: the names of both ends, `derivation`; `calls` (UInt32) and by whom they were seen
    (`seen_by_both`, `seen_by_client`, `seen_by_server`); `failed` (a status from 500 on, or none);
    `p50_ms`, `p99_ms` of what the log says whose figures count, `serving_ms`: the mean of how long
    they were really being served (Float64, null where nothing tells).
    """
    seen = {
        f"seen_by_{one}": (pl.col(OBSERVED_BY) == one).sum() for one in ("both", "client", "server")
    }
    status = pl.col("status_code")
    return (
        calls.group_by(_KEYS)
        .agg(
            calls=pl.len(),
            **seen,
            failed=((status >= _FIRST_FAILURE) | (status < 1)).sum(),
            p50_ms=_quantile_ms(0.5),
            p99_ms=_quantile_ms(0.99),
            serving_ms=(pl.col("serving_duration_ns").mean() / _NS_PER_MS).round(3),
        )
        .sort("calls", *_KEYS, descending=[True, *(False for _ in _KEYS)], nulls_last=True)
    )


def _quantile_ms(share: float) -> pl.Expr:
    return (pl.col("duration_ns").quantile(share, "higher") / _NS_PER_MS).round(3)
