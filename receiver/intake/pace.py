"""How slow a stream may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A stream is whole within `whole_within_s`, or keeps up a rate from `grace_s` on.

    Rover's calls have a deadline of 20 s; nothing takes longer than `longest_s`.
    """

    least_bytes_per_s: int = 4096
    grace_s: float = 10
    whole_within_s: float = 30
    longest_s: float = 120

    def ends_s(self, size_bytes: int) -> float:
        """Return when a stream that has come so far is too slow, in seconds from its begin."""
        kept_up_s = self.grace_s + size_bytes / self.least_bytes_per_s
        return min(max(self.whole_within_s, kept_up_s), self.longest_s)
