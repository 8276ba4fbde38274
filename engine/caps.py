"""How much of what senders make up is told apart, so that none of them fills memory and disk.

Under the caps nothing depends on the order in which logs come. Beyond them sums do not: every log
is counted or dropped with a reason; under which name, or which of them, may.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from framewalk.engine.counters import Counters

# The name of all endpoints of a service beyond the cap; a real one begins with its method.
OTHERS: Final = "others"
# What has no name, beyond the cap of its hour: its columns in UNKNOWN_PEERS_SCHEMA.
OTHER_PEERS: Final[dict[str, str | int]] = {
    **dict.fromkeys(("cluster", "partner", "node", "side", "reason"), ""),
    "address": OTHERS,
    "port": 0,
}
# Reasons to drop logs, and what is counted besides: names of endpoints that became OTHERS.
STREAM_ENTITIES: Final = "stream_entities"
STREAM_MINUTES: Final = "stream_minutes"
MINUTE_ENTITIES: Final = "minute_entities"
OTHER_ENDPOINTS: Final = "other_endpoints"


@dataclass(frozen=True, slots=True)
class Caps:
    """How much is told apart.

    Of a service's endpoints in a minute so many have their names, the rest is OTHERS (3,000 is what
    an OAP keeps of a service). A stream may name so many services and pods, and have logs of so
    many minutes; all streams together may name so many services and pods in a minute: logs beyond
    are dropped. Of what has no name so many are told apart in an hour, the rest is OTHERS.
    """

    endpoints_per_service: int = 3_000
    entities_per_stream: int = 10_000
    minutes_per_stream: int = 64
    entities_per_minute: int = 100_000
    unknown_peers_per_hour: int = 10_000


DEFAULT_CAPS: Final = Caps()

_SAID: Final = {
    STREAM_ENTITIES: "logs were dropped, as their streams name too many services and pods",
    STREAM_MINUTES: "logs were dropped, as their streams have logs of too many minutes",
    MINUTE_ENTITIES: "logs were dropped, as their minutes have too many services and pods",
    OTHER_ENDPOINTS: f"names of endpoints became `{OTHERS}`, as their services have too many",
}
BEYOND: Final = tuple(_SAID)


def beyond_caps(counters: Counters) -> str:
    """Say what was beyond the caps; the empty string for nothing."""
    counts = counters.dropped + counters.quality
    return "; ".join(f"{counts[one]:,} {said}" for one, said in _SAID.items() if counts[one])
