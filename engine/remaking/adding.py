"""States of many parts of logs, added up seldom: it costs much the same for few parts as for many.

adding = Adding(plan)
adding.add(log_states(logs, plan))
states = adding.states()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.stages import roll_up
from framewalk.engine.states import merge

if TYPE_CHECKING:
    from framewalk.engine.oal import Plan
    from framewalk.engine.stages import PeerStates
    from framewalk.engine.states import States

# Rows of the first phase that wait for the second.
_WAITING_ROWS: Final = 1_500_000


class Adding:
    """Adds up what it is given."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._waiting: list[PeerStates] = []
        self._waiting_rows = 0
        self._sums: list[States] = []

    def add(self, found: PeerStates) -> None:
        """Take the states of some logs."""
        self._waiting.append(found)
        self._waiting_rows += found.rows
        if self._waiting_rows >= _WAITING_ROWS:
            self._roll_up()

    def states(self) -> States:
        """Return what it was given together."""
        if self._waiting or not self._sums:
            self._roll_up()
        return self._sums[0] if len(self._sums) == 1 else merge(self._plan, *self._sums)

    def _roll_up(self) -> None:
        self._sums.append(roll_up(self._waiting, self._plan))
        self._waiting, self._waiting_rows = [], 0
        # What is held is at most twice what it amounts to, and each row is merged a few times.
        if sum(map(_rows, self._sums[1:])) > _rows(self._sums[0]):
            self._sums = [merge(self._plan, *self._sums)]


def _rows(states: States) -> int:
    return sum(
        scope.scalars.height + sum(frame.height for frame in scope.keyed.values())
        for scope in states.scopes.values()
    )
