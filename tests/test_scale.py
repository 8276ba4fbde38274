"""The arithmetic of many machines: what is needed, and what faults do to lag."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from scale import COSTS, FREQUENT, SELDOM, group_of  # noqa: E402 - it lies beside the benchmarks
from scaling.simulation import ENGINES, FOLLOWER, STORAGE, Fault, Group, simulate  # noqa: E402
from scaling.sizing import Load, appearances, sized  # noqa: E402

GROUP = Group(
    engines=4,
    rows_per_s=1_000,
    engine_rows_per_s=500,
    follower_rows_per_s=4_000,
    commits_per_s=20,
    publish_every_s=5,
    follow_every_s=5,
)


def test_rows_are_neither_lost_nor_made() -> None:
    faults = [Fault(ENGINES, 50, 100, 2), Fault(STORAGE, 100, 200), Fault(FOLLOWER, 250, 100)]
    lags = simulate(GROUP, faults, 3_600)
    came = 3_600 * GROUP.rows_per_s
    usual = (GROUP.publish_every_s + GROUP.follow_every_s) * GROUP.rows_per_s
    assert came - usual <= lags.followed_rows <= lags.published_rows <= came
    assert lags.well_again_s is not None
    assert lags.well_again_s > 350


def test_without_faults_rows_are_as_old_as_the_waits_say() -> None:
    lags = simulate(GROUP, [], 600)
    assert 0 < lags.most_lag_s <= GROUP.publish_every_s + GROUP.follow_every_s


@pytest.mark.parametrize("what", [ENGINES, STORAGE, FOLLOWER])
def test_what_is_away_is_caught_up_with_by_what_is_left_of_a_core(what: str) -> None:
    lags = simulate(GROUP, [Fault(what, 100, 300, GROUP.engines)], 3_600)
    assert 300 <= lags.most_lag_s < 700
    # Half of an engine's time is free, and three quarters of a follower's.
    assert lags.well_again_s is not None
    assert lags.well_again_s < 400 + 300 + 20


def test_a_follower_that_is_too_slow_never_is_well() -> None:
    slow = Group(4, 1_000, 500, 900, 20, 5, 5)
    assert simulate(slow, [], 3_600).well_again_s is None


def test_ten_times_the_load_needs_ten_times_the_cores() -> None:
    one = Load(nodes=100, pod_pairs=30_000, logs_per_s=10_000)
    few, many = (sized(load, COSTS, FREQUENT) for load in (one, one.at(1_000)))
    for name in ("ingress_cores", "engine_cores", "follower_cores", "store_bytes_per_day"):
        assert getattr(many, name) == pytest.approx(10 * getattr(few, name))
    assert group_of(many, FREQUENT).engines * many.tables >= many.engines - many.tables


@pytest.mark.parametrize(("calls", "in_twelve"), [(1, 1), (2, 2 - 1 / 12), (1_000, 12)])
def test_a_pair_has_rows_in_each_commit_in_which_it_spoke(calls: int, in_twelve: float) -> None:
    pairs = 600
    load = Load(10, pairs, calls * pairs * COSTS.logs_per_call / 60)
    assert appearances(load, COSTS, FREQUENT) == pytest.approx(in_twelve)
    assert appearances(load, COSTS, SELDOM) == pytest.approx(1)


def test_the_page_has_what_the_command_prints() -> None:
    command = [sys.executable, BENCHMARKS / "scale.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    page = (BENCHMARKS.parent / "docs" / "scale.md").read_text()
    for line in done.stdout.splitlines():
        assert line in page
