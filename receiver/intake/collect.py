"""The access log service: a stream is acknowledged when it is on disk, and only then."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.receiver.intake.limits import InFlight, Limit, LimitError
from framewalk.receiver.intake.pace import Pace
from framewalk.receiver.spool import SpoolFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from framewalk.receiver.intake.limits import Share
    from framewalk.receiver.intake.telemetry import Telemetry
    from framewalk.receiver.spool import Spool

# By how much a deadline is moved at least: each move costs a timer.
_STEP_S: Final = 1


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
    transport answers RESOURCE_EXHAUSTED then. A stream that does not keep up its `pace` holds
    memory for nothing.
    """

    spool: Spool
    in_flight: InFlight
    telemetry: Telemetry
    pace: Pace = field(default_factory=Pace)

    async def collect(self, received: AsyncIterator[Received], peer: str = "") -> None:
        """Keep one stream; `received` raises if the stream breaks off, and it is not kept then.

        `peer` is whose share of the limits it is counted in. Nothing is done per message that can
        be done per Received: a message's time is that of the bytes that completed it.
        """
        started_s = time.perf_counter()
        try:
            kept = await self._keep(received, peer)
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

    async def _keep(self, received: AsyncIterator[Received], peer: str) -> _Kept:
        share = await self.in_flight.open(peer)
        try:
            taken, received_at_ns = await self._read(received, share)
            count, is_new = len(taken), True
            if taken:
                written = self.spool.append(taken, received_at_ns)
                # The spool has a copy that fits what it does with it.
                del taken, received_at_ns
                is_new = await asyncio.wrap_future(written)
            return _Kept(count, share.size_bytes, is_new)
        finally:
            share.close()

    async def _read(
        self, received: AsyncIterator[Received], share: Share
    ) -> tuple[list[bytes], list[int]]:
        taken: list[bytes] = []
        received_at_ns: list[int] = []
        started_s = asyncio.get_running_loop().time()
        ends_s = self.pace.ends_s(0)
        try:
            async with share.within(ends_s) as timeout:
                async for messages, partial_bytes in received:
                    count = len(messages)
                    await share.add(count, sum(map(len, messages)), partial_bytes)
                    taken += messages
                    received_at_ns += repeat(time.time_ns(), count)
                    later_s = self.pace.ends_s(share.held_bytes)
                    if later_s > ends_s:
                        ends_s = min(later_s + _STEP_S, self.pace.longest_s)
                        timeout.reschedule(started_s + ends_s)
        except TimeoutError as error:
            problem = f"the stream took longer than {ends_s:g} s"
            if ends_s < self.pace.longest_s:
                problem += f", and came slower than {self.pace.least_bytes_per_s:,} bytes a second"
            raise LimitError(Limit.STREAM_TIME, problem) from error
        return taken, received_at_ns
