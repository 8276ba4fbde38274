"""All 426 metrics have the values that a slow, independent reference finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from comparison import differences, read_views
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import Result, analyse, load_dump, read_capture_rows, read_definitions
from strategies import HOSTILE_DUMP, HostileCapture, hostile_captures

from framewalk.engine.captures.format import CaptureWriter
from framewalk.engine.counters import Counters
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.replayer import replay
from framewalk.engine.store.store import Store

DEFINITIONS = read_definitions()


@pytest.fixture(scope="module")
def hostile_entities(tmp_path_factory: pytest.TempPathFactory) -> Entities:
    path = tmp_path_factory.mktemp("dump") / "kubectl.yaml"
    path.write_text(HOSTILE_DUMP, encoding="utf-8")
    return read_entities(path)


@pytest.mark.parametrize("resolution", ["minute", "hour", "day"])
def test_committed_captures_have_the_reference_values(
    scenario: Path, plan: Plan, tmp_path: Path, resolution: str
) -> None:
    capture = scenario / f"{scenario.name}.capture.arrows"
    dump = scenario / "kubectl.yaml"
    want = analyse(read_capture_rows(capture), load_dump(dump), DEFINITIONS, resolution=resolution)
    with Store(tmp_path / "store.duckdb", plan) as store:
        summary = replay([capture], read_entities(dump), store)
        got = read_views(store, resolution)
    assert differences(got, want.values) == []
    assert_same_counts(summary.counters, want)
    assert sum(len(rows) for rows in want.values.values()) > 50


def assert_same_counts(counters: Counters, want: Result) -> None:
    assert (counters.messages, counters.logs) == (want.messages, want.logs)
    assert counters.dropped == +want.dropped
    assert counters.quality == +want.quality


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(capture=hostile_captures(), cuts=st.lists(st.integers(1, 20), max_size=4))
def test_hostile_captures_have_the_reference_values(
    capture: HostileCapture,
    cuts: list[int],
    plan: Plan,
    hostile_entities: Entities,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    path = write_rows(folder / "hostile.capture.arrows", capture.rows, cuts)
    want = analyse(capture.rows, load_dump(HOSTILE_DUMP), DEFINITIONS)
    with Store(folder / "store.duckdb", plan) as store:
        summary = replay([path], hostile_entities, store)
        got = read_views(store)
    assert differences(got, want.values) == []
    assert_same_counts(summary.counters, want)


def write_rows(
    path: Path, rows: Sequence[tuple[int, int, int, bytes]], cuts: Sequence[int]
) -> Path:
    """Write rows as record batches of these lengths, the rest as one more."""
    with CaptureWriter(path) as writer:
        start = 0
        for length in [*cuts, len(rows)]:
            batch = rows[start : start + length]
            if batch:
                writer.write_messages(*zip(*batch, strict=True))
            start += length
    return path
