"""Measuring: several rounds, each of which runs the work and all its rivals once.

What is compared runs side by side within seconds, so a machine that is busy with other things
slows both; the order changes from round to round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import text_answer
from frame.results import RivalResult, RowResult, SeriesPoint, SeriesResult, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frame.captures import Size
    from frame.contest import Contest, Rival, Runner, Sample, Series


def measure_contest(
    benchmark: str, contest: Contest, size: Size, tell: Callable[[str], None]
) -> RowResult:
    """Run a contest; every run must give the answer that it should.

    The first run of each shows the memory; where the size warms up, it counts for nothing else.

    Raises:
        AssertionError: an answer differs from the first one, or from that of the work.
    """
    tell(f"{benchmark}: {contest.name}")
    runners = [contest.work, *(rival.runner for rival in contest.rivals)]
    first = [runner.run() for runner in runners]
    _check_rivals(contest, first)
    samples = _rounds(runners, first, size, lambda at: tell(f"{benchmark}: {contest.name}, {at}"))
    work, *others = samples
    return RowResult(
        benchmark=benchmark,
        name=contest.name,
        unit=contest.unit,
        count=contest.work.count,
        cpu_s=spread([sample.cpu_s for sample in work]),
        elapsed_s=spread([sample.elapsed_s for sample in work]),
        peak_bytes=first[0].peak_bytes,
        rows=first[0].answer.rows,
        checksum=first[0].answer.checksum,
        limited_by=contest.limited_by,
        rivals=tuple(
            _rival_result(contest.work, work, rival, own)
            for rival, own in zip(contest.rivals, others, strict=True)
        ),
    )


def measure_series(
    benchmark: str, series: Series, size: Size, tell: Callable[[str], None]
) -> SeriesResult:
    """Measure all points of a series in turn, as often as the size says.

    Raises:
        AssertionError: an answer has no rows, or differs from the first one.
    """
    tell(f"{benchmark}: {series.name}")
    runners = [point.runner for point in series.points]
    first = [runner.run() for runner in runners]
    assert all(sample.answer.rows for sample in first), f"{series.name}: an answer without rows"
    samples = _rounds(runners, first, size, lambda at: tell(f"{benchmark}: {series.name}, {at}"))
    points = tuple(
        SeriesPoint(point.x, spread([sample.cpu_s for sample in own]))
        for point, own in zip(series.points, samples, strict=True)
    )
    return SeriesResult(
        benchmark=benchmark,
        name=series.name,
        x_name=series.x_name,
        remark=series.remark,
        rows=sum(sample.answer.rows for sample in first),
        checksum=text_answer(*(sample.answer.checksum for sample in first)).checksum,
        points=points,
    )


def _rounds(
    runners: Sequence[Runner], first: Sequence[Sample], size: Size, tell: Callable[[str], None]
) -> list[list[Sample]]:
    """Run all in turn, forwards and backwards; return the samples of each."""
    samples: list[list[Sample]] = [[] if size.warm_up else [sample] for sample in first]
    numbers = list(range(len(runners)))
    for done in range(len(samples[0]), size.rounds):
        for number in numbers if done % 2 == 0 else reversed(numbers):
            tell(f"round {done + 1} of {size.rounds}: {runners[number].name}")
            sample = runners[number].run()
            _check_same(runners[number].name, sample, first[number])
            samples[number].append(sample)
    return samples


def _check_rivals(contest: Contest, first: Sequence[Sample]) -> None:
    work, *others = first
    assert work.answer.rows, f"{contest.name}: an answer without rows"
    for rival, sample in zip(contest.rivals, others, strict=True):
        if rival.same_answer:
            _check_same(f"{rival.runner.name} beside {contest.name}", sample, work)


def _check_same(name: str, sample: Sample, wanted: Sample) -> None:
    assert sample.answer == wanted.answer, (
        f"{name}: the answer is {sample.answer.rows:,} rows with checksum "
        f"{sample.answer.checksum}, not {wanted.answer.rows:,} with {wanted.answer.checksum}"
    )


def _rival_result(
    work: Runner, work_samples: Sequence[Sample], rival: Rival, samples: Sequence[Sample]
) -> RivalResult:
    units = rival.runner.count / work.count
    ratios = [
        one.cpu_s / other.cpu_s * units for one, other in zip(work_samples, samples, strict=True)
    ]
    return RivalResult(
        name=rival.runner.name,
        count=rival.runner.count,
        cpu_s=spread([sample.cpu_s for sample in samples]),
        elapsed_s=spread([sample.elapsed_s for sample in samples]),
        ratio=spread(ratios),
        at_most=rival.at_most,
    )
