"""The access log service: a stream is acknowledged when it is on disk, and only then."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from framewalk.receiver.intake.limits import InFlight, Limit, LimitError
from framewalk.receiver.spool import SpoolFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from framewalk.receiver.intake.limits import StreamShare
    from framewalk.receiver.intake.telemetry import Telemetry
    from framewalk.receiver.spool import Spool


class Received(NamedTuple):
    """What came of a stream at once: whole messages, and how much of the next one is held."""

    messages: Sequence[bytes]
    partial_bytes: int = 0


class _Kept(NamedTuple):
    messages: int
    size_bytes: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Collector:
    """Takes in streams of raw EBPFAccessLogMessages; knows nothing of the transport.

    Raises LimitError and SpoolFullError where it cannot be said that a stream is kept; the
    transport answers RESOURCE_EXHAUSTED then. A stream that is not at its end after
    `longest_stream_s` holds memory for nothing: a sender of Rover's gives up after 20 s.
    """

    spool: Spool
    in_flight: InFlight
    telemetry: Telemetry
    longest_stream_s: float = 120

    async def collect(self, received: AsyncIterator[Received]) -> None:
        """Keep one stream; `received` raises if the stream breaks off, and it is not kept then.

        Nothing is done per message that can be done per Received: a message's time is that of the
        bytes that completed it.
        """
        started_s = time.perf_counter()
        try:
            kept = await self._keep(received)
        except (LimitError, SpoolFullError) as error:
            self.telemetry.refused(error.reason)
            raise
        except BaseException:
            self.telemetry.broken_stream()
            raise
        if kept.is_new:
            duration_s = time.perf_counter() - started_s
            self.telemetry.received(kept.messages, kept.size_bytes, duration_s)
        else:
            self.telemetry.repeated_stream()

    async def _keep(self, received: AsyncIterator[Received]) -> _Kept:
        share = self.in_flight.open_stream()
        try:
            taken, received_at_ns = await self._read(received, share)
            is_new = True
            if taken:
                is_new = await asyncio.wrap_future(self.spool.append(taken, received_at_ns))
            return _Kept(len(taken), share.size_bytes, is_new)
        finally:
            share.close()

    async def _read(
        self, received: AsyncIterator[Received], share: StreamShare
    ) -> tuple[list[bytes], list[int]]:
        taken: list[bytes] = []
        received_at_ns: list[int] = []
        try:
            async with asyncio.timeout(self.longest_stream_s):
                async for messages, partial_bytes in received:
                    count = len(messages)
                    share.add(count, sum(map(len, messages)), partial_bytes)
                    taken += messages
                    received_at_ns += repeat(time.time_ns(), count)
        except TimeoutError as error:
            problem = f"the stream took longer than {self.longest_stream_s:g} s"
            raise LimitError(Limit.STREAM_TIME, problem) from error
        return taken, received_at_ns
