"""What is measured: work, the rivals it is compared with, and the answers they must give."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from frame.memory_peak import peak_bytes, reset_peak

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from frame.captures import Size

Result = TypeVar("Result")

_LAUNCHER: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Answer:
    """What must be the same in every run: how many rows there are, and a digest of them."""

    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `cpu_s` is user and system time, that of child processes included."""

    cpu_s: float
    elapsed_s: float
    peak_bytes: int
    answer: Answer


class Runner(Protocol):
    """Something that can be run and gives its answer; `count` units of work in one run."""

    @property
    def name(self) -> str:
        """What it is called in the table."""

    @property
    def count(self) -> int:
        """Units of work in one run."""

    def run(self) -> Sample:
        """Run once. Raises AssertionError where it fails."""


def _nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """Work in this process. `before` and `answer` are not on the clock."""

    name: str
    count: int
    work: Callable[[], Result]
    answer: Callable[[Result], Answer]
    before: Callable[[], None] = _nothing

    def run(self) -> Sample:
        """Run once."""
        self.before()
        reset_peak()
        started_s, started_cpu_s = time.perf_counter(), _cpu_s()
        result = self.work()
        cpu_s, elapsed_s = _cpu_s() - started_cpu_s, time.perf_counter() - started_s
        return Sample(cpu_s, elapsed_s, peak_bytes(), self.answer(result))


@dataclass(frozen=True, slots=True)
class Process:
    """A command in a process of its own; `answer` gets its standard output."""

    name: str
    count: int
    command: Sequence[str | Path]
    answer: Callable[[str], Answer]
    before: Callable[[], None] = _nothing

    def run(self) -> Sample:
        """Run once; the CPU time and the memory are those of the process alone."""
        self.before()
        with tempfile.TemporaryDirectory() as folder:
            used_path = Path(folder) / "used.json"
            command = [sys.executable, "-I", _LAUNCHER, used_path, *self.command]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            used = json.loads(used_path.read_text(encoding="ascii"))
        exit_code = used.pop("exit_code")
        assert exit_code == 0, f"{self.name} ended with {exit_code}"
        return Sample(**used, answer=self.answer(done.stdout))


@dataclass(frozen=True, slots=True)
class Rival:
    """What the work is compared with, per unit of work.

    `same_answer` demands the answer of the work; a ceiling that does less has another.
    `at_most` is the largest ratio that is accepted.
    """

    runner: Runner
    same_answer: bool = True
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """One row of the table. `limited_by` says in a sentence what limits it now."""

    name: str
    unit: str
    work: Runner
    limited_by: str
    rivals: Sequence[Rival] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a series: at `x` the work costs what `runner` costs."""

    x: float
    runner: Runner


@dataclass(frozen=True, slots=True)
class Series:
    """How cost grows with one quantity, all else being equal."""

    name: str
    x_name: str
    points: Sequence[Point]
    remark: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a benchmark is made for: a size, and a folder for what it writes."""

    size: Size
    folder: Path


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What one file of `suite/` measures."""

    contests: Sequence[Contest] = ()
    series: Sequence[Series] = ()


def _cpu_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


# Answers.


def text_answer(*lines: str) -> Answer:
    """Return the answer that these lines are."""
    digest = hashlib.blake2b("\n".join(lines).encode(), digest_size=8)
    return Answer(len(lines), digest.hexdigest())


def rows_answer(frames: Mapping[str, pl.DataFrame]) -> Answer:
    """Digest flat frames by all their values; the order of rows and columns does not count."""
    digest = hashlib.blake2b(digest_size=8)
    for name, frame in sorted(frames.items()):
        columns = sorted(frame.columns)
        ordered = frame.select(columns).sort(columns)
        digest.update(f"{name}\n{ordered.write_csv()}".encode())
    return Answer(sum(frame.height for frame in frames.values()), digest.hexdigest())


def sums_answer(frames: Mapping[str, pl.DataFrame]) -> Answer:
    """Digest large frames by the sum and nulls of each column; of texts, the sum of lengths."""
    import polars as pl  # noqa: PLC0415 - benchmarks of start-up do without

    lines = []
    for name, frame in sorted(frames.items()):
        for column in sorted(frame.columns):
            values = frame[column]
            numbers = values.str.len_bytes() if values.dtype == pl.String else values
            if numbers.dtype == pl.Boolean or numbers.dtype.is_integer():
                total = numbers.cast(pl.Int128).sum()
                lines.append(f"{name}.{column} {total} {values.null_count()}")
    checksum = text_answer(*lines).checksum
    return Answer(sum(frame.height for frame in frames.values()), checksum)
