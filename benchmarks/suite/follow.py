"""Stage 2, follow: the node and connection of each message, beside the decoding of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest, sums_answer
from frame.stages import Stages, beside_bare_decode, follow

if TYPE_CHECKING:
    from frame.contest import Answer, Context

    from framewalk.engine.stages.streams import StreamContext


def benchmark(context: Context) -> Benchmark:
    """Follow the streams of decoded messages."""
    stages = Stages(context)
    decoded = stages.decoded
    work = Call("follow", stages.logs, lambda: follow(decoded), contexts_answer)
    limited_by = (
        "a forward fill and three joins on the stream number per piece, all in proportion to "
        "messages, not logs."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("follow streams", "logs", work, limited_by, rivals)])


def contexts_answer(contexts: list[StreamContext]) -> Answer:
    """Digest which node and connection each message got."""
    return sums_answer({f"{number}": one.messages for number, one in enumerate(contexts)})
