"""The seam between the receiver and what carries its calls.

A transport answers the methods of services.py and health, hands streams to a Collector, and
knows nothing else; the rest of the receiver knows nothing of it.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

TransportKind = Literal["uvicorn", "grpcio"]

# The metadata key of the token, and the reason under which a stream without it is counted.
AUTHENTICATION: Final = "authentication"
WRONG_TOKEN: Final = "the authentication token is wrong"  # noqa: S105 - a message
# What is told, once a minute, of senders that get no for an answer; the reason is beside it.
REFUSED: Final = "senders are refused"


class Transport(Protocol):
    """A server on one port. It is bound when it is made, and takes calls from `start` on."""

    port: int

    async def start(self) -> None:
        """Accept calls and say that the server is healthy."""

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those under way this long to end."""
