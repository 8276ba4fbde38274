"""What does tasks, wherever it does them: the seam between what is to be done and who does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.engine.spreading.stretches import Found, Setup, Stretch
    from framewalk.engine.stages import PeerStates
    from framewalk.engine.states import States

# Workers that may end over the same task.
MOST_DEATHS: Final = 3
TRY_APART: Final = "run this again: its messages are tried apart first"


class Pool(Protocol):
    """Does tasks in other processes; what comes of them stays there until it is asked for.

    A task is a number. Where a worker ends, another does its task; where MOST_DEATHS of them end
    over one, BrokenTaskError is raised by who waits for it.
    """

    @property
    def workers(self) -> int:
        """How many tasks are done at once."""

    def begin(self, setup: Setup) -> None:
        """Have all stretches from now on be computed with this."""

    def submit(self, stretch: Stretch) -> str:
        """Have a stretch computed; returns its number."""

    def found(self, number: str) -> Found:
        """Wait for what was found in a stretch. Raises what computing it raised."""

    def parts(self, number: str) -> list[PeerStates]:
        """Return the states by peers of a stretch that was found."""

    def rolled_up(self, numbers: Sequence[str], *, with_ahead: bool) -> Iterator[States]:
        """Yield the states of stretches that were found, as `roll_up_in_parts` does."""

    def forget(self, numbers: Sequence[str]) -> None:
        """Drop tasks, done or not."""
