"""By which clock metrics expire: one that was set wrongly must not delete a store."""

from __future__ import annotations

from typing import Final

_DAY_S: Final = 86_400
_REMEDY: Final = "set the clock right; if it is, start the server again"


class ExpiryClock:
    """Tells whether the time of the system's clock may be gone by.

    The clock is believed as long as it is at most a day ahead of what a clock that is never set
    says since the start. After the start it must first have been at most a day ahead of the newest
    minute of the store, too: the clocks of nodes are others than the one that may be wrong.

    Times named `now_s` are since 1970, `elapsed_s` is of the clock that is never set.
    """

    def __init__(self, now_s: float, elapsed_s: float) -> None:
        self._base_s = now_s - elapsed_s
        self._is_confirmed = False

    def problem(self, now_s: float, elapsed_s: float, newest_s: float | None) -> str:
        """Say why this time is not to be gone by; the empty string where it is.

        `newest_s` is the newest minute of the store that is not after `now_s`, None for none.
        """
        ahead_s = now_s - self._base_s - elapsed_s
        if ahead_s > _DAY_S:
            return f"the clock was set {_days(ahead_s)} ahead since the start; {_REMEDY}"
        if self._is_confirmed:
            return ""
        if newest_s is None or now_s - newest_s > _DAY_S:
            ahead = "no minute of the store is before it"
            if newest_s is not None:
                ahead = f"it is {_days(now_s - newest_s)} ahead of the newest minute of the store"
            return f"the clock is not confirmed since the start: {ahead}; newer logs confirm it"
        self._is_confirmed = True
        self._base_s = min(self._base_s, now_s - elapsed_s)
        return ""


def _days(seconds: float) -> str:
    return f"{seconds / _DAY_S:,.0f} days"
