"""What does tasks, wherever it does them: the seam between what is to be done and who does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Workers that may end over the same task.
MOST_DEATHS: Final = 3
# Tasks in flight for each worker: one that is computed, one that waits, one that is done.
IN_FLIGHT: Final = 3


@dataclass(frozen=True, slots=True)
class Made:
    """What comes of a task: `found` is told at once, `parts` (packed) to whoever asks."""

    found: Any
    parts: bytes


class Task(Protocol):
    """What can be computed anywhere: a pure function of what it holds, and of what it gets.

    `str()` of it says what it is about; whoever reads that workers have ended over it is told the
    `remedy`.
    """

    @property
    def remedy(self) -> str:
        """What to do where it cannot be computed."""

    def compute(self, setup: Any, parts: Iterable[bytes]) -> Made:  # noqa: ANN401 - of its kind
        """Compute it with a setup, and the packed parts of tasks before it."""


class Pool(Protocol):
    """Does tasks in other processes; what comes of them stays there until it is asked for.

    A task has a number. Where a worker ends, another does its task; where MOST_DEATHS of them end
    over one, BrokenTaskError is raised by who waits for it.
    """

    @property
    def workers(self) -> int:
        """How many tasks are done at once."""

    def begin(self, setup: object) -> None:
        """Have all tasks from now on be computed with this."""

    def submit(self, task: Task, of: Sequence[str] = (), *, is_urgent: bool = False) -> str:
        """Have a task computed, of the parts of others, which are done; returns its number.

        One that is urgent comes before those that nobody has begun with.
        """

    def found(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Wait for what was found in a task. Raises what computing it raised."""

    def parts(self, number: str) -> Any:  # noqa: ANN401 - of the kind of the task
        """Return the parts of a task that is done."""

    def forget(self, numbers: Sequence[str]) -> None:
        """Drop tasks, done or not."""
