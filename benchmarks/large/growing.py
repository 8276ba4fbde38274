"""How costs grow with the size of a cluster and with what is stored: points, and their plots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from frame.plots import NO_DATE, STYLE, plt
from pydantic import TypeAdapter

from framewalk.engine import Store
from framewalk.engine.oal import make_plan
from large.cluster import make_cluster
from large.copies import copy_hour
from large.hours import FIRST_MINUTE, write_store
from large.minutes import Minutes
from large.questions import Asked, ask_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

_STYLE: Final = STYLE | {"font.size": 8}
_HOUR_MINUTES: Final = 60
_MORE_MINUTES: Final = 20
_MORE_AT_ONCE: Final = 5
_FRAMEWALK: Final = Path(sys.executable).with_name("framewalk")


@dataclass(frozen=True, slots=True)
class Point:
    """What a store of so many services and hours took to make, and to ask.

    `minute_cpu_s` is what the states of one more minute took to commit, in the mean, and
    `rolled_up_cpu_s` what it took to make minutes, hours and days of them: that is before it is
    asked, as a server does it every five minutes. `size_bytes` are blocks in use then.
    """

    services: int
    hours: int
    size_bytes: int
    minute_cpu_s: float
    asked: dict[str, Asked]
    rolled_up_cpu_s: float | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the replay of some logs of a cluster of so many services took, as a process."""

    services: int
    logs: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Growth:
    """All that was measured."""

    points: list[Point] = field(default_factory=list)
    replays: list[Replayed] = field(default_factory=list)


_GROWTH: Final = TypeAdapter(Growth)


def read_growth(path: Path) -> Growth:
    """Return what a file holds; nothing where there is none."""
    return _GROWTH.validate_json(path.read_bytes()) if path.exists() else Growth()


def write_growth(growth: Growth, path: Path) -> None:
    """Write a file of JSON, the smallest first."""
    growth.points.sort(key=lambda one: (one.services, one.hours))
    growth.replays.sort(key=lambda one: one.services)
    path.write_text(json.dumps(asdict(growth), indent=2) + "\n", encoding="utf-8")


def measure_point(services: int, hours: int, stores: Path) -> Point:
    """Make a store of so many hours, which is kept, and ask it."""
    path = store_of(services, hours, stores)
    minutes = Minutes(make_cluster(services))
    began_s = time.process_time()
    first = _Times()
    write_store(path, minutes, hours * _HOUR_MINUTES, tell=first.tell)
    # What it takes to compute the states that are varied is before the first commit ends.
    done, since_s = first.after_first or (0, began_s)
    minute_cpu_s = (time.process_time() - since_s) / max(hours * _HOUR_MINUTES - done, 1)
    rolled_up_cpu_s = _rolled_up_cpu_s(path) / (hours * _HOUR_MINUTES)
    size_bytes = _used_bytes(path)
    return Point(services, hours, size_bytes, minute_cpu_s, ask_all(path), rolled_up_cpu_s)


def measure_copied(services: int, hours: int, stores: Path) -> Point:
    """Make a store of an hour that was computed and copies of it, ask it, and let it go on.

    The CPU of a minute is that of minutes that come when all these hours are there.
    """
    path = store_of(services, hours, stores)
    minutes = Minutes(make_cluster(services))
    write_store(path, minutes, _HOUR_MINUTES)
    copy_hour(path, hours, views=None)
    size_bytes, asked = _used_bytes(path), ask_all(path)
    more = _Times()
    write_store(
        path,
        minutes,
        _MORE_MINUTES,
        first_minute=FIRST_MINUTE + _HOUR_MINUTES,
        at_once=_MORE_AT_ONCE,
        tell=more.tell,
    )
    assert more.after_first is not None, "it tells after each commit"
    done, since_s = more.after_first
    minute_cpu_s = (time.process_time() - since_s) / (_MORE_MINUTES - done)
    rolled_up_cpu_s = _rolled_up_cpu_s(path) / _MORE_MINUTES
    return Point(services, hours, size_bytes, minute_cpu_s, asked, rolled_up_cpu_s)


def _rolled_up_cpu_s(path: Path) -> float:
    """Roll up what is in a store, and return what that took."""
    since_s = time.process_time()
    with Store(path, make_plan(())) as store:
        store.limit_memory()
        store.compact()
        store.checkpoint()
    return time.process_time() - since_s


def _used_bytes(path: Path) -> int:
    """Return what a store takes without blocks that are free: rows were there twice for a while."""
    with Store(path, make_plan(())) as store:
        return store.room().used_bytes


def asked_again(point: Point, stores: Path) -> Point:
    """Return a point with what its store, where it was kept, takes to answer now."""
    path = store_of(point.services, point.hours, stores)
    return replace(point, asked=ask_all(path)) if path.exists() else point


def store_of(services: int, hours: int, stores: Path) -> Path:
    """Return where a store of so many services and hours is kept."""
    stores.mkdir(parents=True, exist_ok=True)
    return stores / f"{services}-services-{hours}-hours.duckdb"


class _Times:
    """Remembers when the first commit had ended."""

    def __init__(self) -> None:
        self.after_first: tuple[int, float] | None = None

    def tell(self, done: int) -> None:
        if self.after_first is None:
            self.after_first = (done, time.process_time())


def measure_replay(services: int, capture: Path, dump: Path, logs: int) -> Replayed:
    """Replay a capture into a new store, in one process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.duckdb"
        command = [_FRAMEWALK, "replay", capture, "--entities", dump, "--store", store]
        command += ["--workers", "1"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
    return Replayed(services, logs, used.ru_utime + used.ru_stime)


def draw(growth: Growth, path: Path) -> None:
    """Draw how all of it grows with the services of a store of an hour, and with hours."""
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(5, 2, figsize=(8, 13), layout="constrained")
        flat: list[Axes] = list(axes.flat)
        replays = [(one.services, one.cpu_s / one.logs * 10**6) for one in growth.replays]
        _line(flat[0], "services", "replay, CPU s per million logs", {"": replays})
        hour = [one for one in growth.points if one.hours == 1]
        commits = [(one.services, one.minute_cpu_s) for one in hour]
        _line(flat[1], "services", "commit of a minute, CPU s", {"": commits})
        _line(flat[2], "services", "an hour, MB", {"": [_size(one.services, one) for one in hour]})
        by_services = {
            f"{services} services": [one for one in growth.points if one.services == services]
            for services in sorted({one.services for one in growth.points if one.hours > 1})
        }
        sizes = {name: [_size(one.hours, one) for one in own] for name, own in by_services.items()}
        _line(flat[3], "hours", "blocks in use, MB", sizes)
        for axis, question in zip(flat[4:], hour[0].asked if hour else (), strict=False):
            lines = {"an hour, against services / 100": _asked(question, hour, by_hours=False)}
            for name, own in by_services.items():
                lines[f"{name}, against hours"] = _asked(question, own, by_hours=True)
            _line(axis, "services / 100, or hours", f"{question}, ms", lines)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, format="svg", metadata=NO_DATE)
        plt.close(figure)


def _size(x: float, point: Point) -> tuple[float, float]:
    return x, point.size_bytes / 10**6


def _asked(question: str, points: Sequence[Point], *, by_hours: bool) -> list[tuple[float, float]]:
    return [
        (one.hours if by_hours else one.services / 100, one.asked[question].elapsed_s * 1000)
        for one in points
    ]


def _line(
    axis: Axes, x_name: str, y_name: str, lines: dict[str, list[tuple[float, float]]]
) -> None:
    for name, line in lines.items():
        if line:
            xs, ys = zip(*line, strict=True)
            axis.plot(xs, ys, marker="o", markersize=3, label=name or None)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.set_xlabel(x_name)
    axis.set_title(y_name)
    axis.grid(alpha=0.3)
    if any(lines):
        axis.legend(frameon=False)


def table_lines(growth: Growth) -> Iterable[tuple[str, ...]]:
    """Yield a line for each point: services, hours, MB, and a minute's CPU, and the questions'."""
    for one in growth.points:
        asked = (
            f"{answer.cpu_s * 1000:,.0f} / {answer.elapsed_s * 1000:,.0f}"
            for answer in one.asked.values()
        )
        size_mb = f"{one.size_bytes / 10**6:,.0f}"
        rolled_up = "" if one.rolled_up_cpu_s is None else f"{one.rolled_up_cpu_s:.2f}"
        minute = f"{one.minute_cpu_s:.2f}"
        yield f"{one.services:,}", str(one.hours), size_mb, minute, rolled_up, *asked
