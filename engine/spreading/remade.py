"""What is made again, by a pool: `Making` (engine/remaking) for who has one.

Tasks of metrics are files of the archive, and the states of a part are merged in a tree. Those of
relations are minutes, for what comes of one hangs on the logs around it, whichever files have them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from framewalk.engine.archive import NS_PER_MINUTE, ArchivedLogs, Listed
from framewalk.engine.remaking import MadeMetrics, Wanted, metrics_of, relations_made
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.engine.spreading.packing import pack, unpack
from framewalk.engine.spreading.pool import IN_FLIGHT, Made
from framewalk.engine.states import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from framewalk.engine.archive import ArchivedFile
    from framewalk.engine.oal import Plan
    from framewalk.engine.remaking import MadeRelations
    from framewalk.engine.spreading.pool import Pool

# Logs of a task: some hundred MB while they are read.
_LOGS_OF_TASK: Final = 500_000
# States that are merged at once.
_MERGED_AT_ONCE: Final = 8
_REMEDY: Final = "run this again with --workers 1: it goes on, and says what ends it"


@dataclass(frozen=True, slots=True)
class _Metrics:
    """The states of some minutes, of the logs of some files."""

    listed: Listed
    minutes: tuple[int, ...]

    def __str__(self) -> str:
        files = self.listed.files
        more = f", and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"{self.listed.folder / files[0].name}{more}" if files else str(self.listed.folder)

    @property
    def remedy(self) -> str:
        return _REMEDY

    def compute(self, setup: Plan, parts: Iterable[bytes]) -> Made:  # noqa: ARG002 - of no others
        made = metrics_of(ArchivedLogs(self.listed), setup, self.minutes)
        return Made(made.logs, pack(made.states))


@dataclass(frozen=True, slots=True)
class _Merged:
    """States of the same minutes together; its parts are packed states."""

    first: str

    def __str__(self) -> str:
        return f"{self.first}, merged with what follows it"

    @property
    def remedy(self) -> str:
        return _REMEDY

    def compute(self, setup: Plan, parts: Iterable[bytes]) -> Made:
        return Made(None, pack(merge(setup, *map(unpack, parts))))


@dataclass(frozen=True, slots=True)
class _Relations:
    """The relations between endpoints of some minutes."""

    listed: Listed
    minutes: tuple[int, ...]
    most_requests: int

    def __str__(self) -> str:
        first, last = self.minutes[0], self.minutes[-1]
        return f"{self.listed.folder}, relations of minutes {first} to {last} since 1970"

    @property
    def remedy(self) -> str:
        return _REMEDY

    def compute(self, setup: Plan, parts: Iterable[bytes]) -> Made:  # noqa: ARG002 - of no others
        logs = ArchivedLogs(self.listed)
        return Made(None, pack(relations_made(logs, setup, self.minutes, self.most_requests)))


@dataclass(frozen=True, slots=True)
class _Part:
    """Minutes that are written together, the files, and the numbers of the tasks that they are."""

    minutes: tuple[int, ...]
    name: str
    files: tuple[ArchivedFile, ...]
    numbers: list[str]


class SpreadMaking:
    """Has a pool make what is made again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def metrics(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]]
    ) -> Iterator[MadeMetrics]:
        """Yield the states of parts."""
        self._pool.begin(plan)
        kinds = tuple(Wanted.of(plan).columns)
        submitted = (self._submitted(part, _tasks(logs, kinds, part)) for part in parts)
        for one in self._in_flight(submitted):
            with logs.guarding(one.files):
                count = sum(self._pool.found(number) for number in one.numbers)
            number = self._merged(one)
            states = self._pool.parts(number)
            self._pool.forget([number])
            yield MadeMetrics(one.minutes, count, states)

    def relations(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]], most_requests: int
    ) -> Iterator[list[MadeRelations]]:
        """Yield the relations of parts, each as one or several that follow each other."""
        self._pool.begin(plan)
        submitted = (
            self._submitted(part, [_Relations(_near(logs, part), tuple(part), most_requests)])
            for part in parts
        )
        for one in self._in_flight(submitted):
            with logs.guarding(one.files):
                self._pool.found(one.numbers[0])
            made: list[MadeRelations] = self._pool.parts(one.numbers[0])
            self._pool.forget(one.numbers)
            yield made

    def _submitted(
        self, minutes: Sequence[int], tasks: Sequence[_Metrics] | Sequence[_Relations]
    ) -> _Part:
        numbers = [self._pool.submit(task) for task in tasks]
        files = tuple(file for task in tasks for file in task.listed.files)
        return _Part(tuple(minutes), str(tasks[0]), files, numbers)

    def _in_flight(self, parts: Iterator[_Part]) -> Iterator[_Part]:
        """Yield parts in their order, while so many tasks of others are in flight as keep all busy.

        The next ones are handed out before one is yielded: workers compute while it is written.
        """
        waiting: deque[_Part] = deque()
        try:
            while True:
                most = IN_FLIGHT * self._pool.workers
                while sum(len(one.numbers) for one in islice(waiting, 1, None)) < most:
                    if (part := next(parts, None)) is None:
                        break
                    waiting.append(part)
                if not waiting:
                    return
                yield waiting[0]
                waiting.popleft()
        finally:
            self._pool.forget([number for one in waiting for number in one.numbers])

    def _merged(self, part: _Part) -> str:
        """Return the number of the task with the states of all of a part's tasks, which are done.

        The others are forgotten.
        """
        numbers = part.numbers
        while len(numbers) > 1:
            starts = range(0, len(numbers), _MERGED_AT_ONCE)
            groups = [numbers[start : start + _MERGED_AT_ONCE] for start in starts]
            merged = [
                self._pool.submit(_Merged(part.name), group, is_urgent=True) for group in groups
            ]
            for number in merged:
                self._pool.found(number)
            self._pool.forget(numbers)
            numbers = merged
        return numbers[0]


def _tasks(logs: ArchivedLogs, kinds: Sequence[str], minutes: Sequence[int]) -> list[_Metrics]:
    """Cut the files that have logs of minutes into tasks; there is at least one."""
    first_ns, end_ns = minutes[0] * NS_PER_MINUTE, (minutes[-1] + 1) * NS_PER_MINUTE
    groups: list[list[ArchivedFile]] = [[]]
    rows = 0
    for file in (one for kind in kinds for one in logs.files(kind, first_ns, end_ns)):
        if groups[-1] and rows + file.rows > _LOGS_OF_TASK:
            groups.append([])
            rows = 0
        groups[-1].append(file)
        rows += file.rows
    listed = [replace(logs.listed, files=tuple(group)) for group in groups]
    return [_Metrics(one, tuple(minutes)) for one in listed]


def _near(logs: ArchivedLogs, minutes: Sequence[int]) -> Listed:
    """Return the files that relations of minutes may be made of."""
    first_ns, end_ns = minutes[0] * NS_PER_MINUTE, (minutes[-1] + 1) * NS_PER_MINUTE
    return logs.listed.between(first_ns - 2 * LONGEST_SERVED_NS, end_ns + 2 * LONGEST_SERVED_NS)
