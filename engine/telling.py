"""What an operator is told: one fact a line, whoever writes the lines (server/logs.py)."""

from __future__ import annotations

import logging
import time
from typing import Final

_LOG: Final = logging.getLogger("framewalk.told")
# A trouble that is over for so long is told to be.
_CALM_S: Final = 5


def tell(level: int, event: str, **facts: object) -> None:
    """Write a line: what happened, and its facts."""
    _LOG.log(level, event, extra={"facts": facts})


class Trouble:
    """Something that lasts: a line when it begins, and one when it is over."""

    def __init__(self, begin: str, end: str) -> None:
        self._begin = begin
        self._end = end
        self._problem = ""
        self._latest_s: float = 0

    def goes_on(self, problem: str) -> None:
        """Say so, unless the same was said before."""
        self._latest_s = time.monotonic()
        if problem != self._problem:
            self._problem = problem
            tell(logging.ERROR, self._begin, error=problem)

    def is_over(self) -> None:
        """Say so, once, when it has been over for some seconds: it may come and go."""
        if self._problem and time.monotonic() - self._latest_s >= _CALM_S:
            tell(logging.INFO, self._end, error=self._problem)
            self._problem = ""
