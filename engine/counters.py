"""What happened to messages and logs: counted in every stage, added up, never silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of one piece of work; `+` adds those of another.

    `logs` counts every log of every decoded message. `dropped` counts logs by reason
    (schemas.DROP_REASONS), `quality` what was repaired or skipped (schemas.QUALITY_COUNTERS),
    `addresses` the IP addresses of logs' sides: those `known` and `unknown`.
    """

    messages: int = 0
    logs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    addresses: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Counters) -> Counters:
        """Return the sum of both."""
        return Counters(
            self.messages + other.messages,
            self.logs + other.logs,
            self.dropped + other.dropped,
            self.quality + other.quality,
            self.addresses + other.addresses,
        )
