"""Stage 1, decode: message bytes to nested columns, beside the bare call of ptars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest, Rival
from frame.stages import Stages, bare_decode, decoded_answer

from framewalk.engine.stages.decoding import decode

if TYPE_CHECKING:
    from frame.contest import Context


def benchmark(context: Context) -> Benchmark:
    """Decode the same messages with and without what the engine adds."""
    stages = Stages(context)
    work = Call(
        "decode",
        stages.logs,
        lambda: [one for piece in stages.pieces for one in decode(piece)],
        lambda decoded: decoded_answer([one.nested for one in decoded]),
    )
    limited_by = (
        "ptars itself: protobuf parsing and filling Arrow builders; the engine adds slicing to "
        "10,000 messages and one copy of the message bytes."
    )
    rivals = [Rival(bare_decode(stages))]
    return Benchmark([Contest("decode", "logs", work, limited_by, rivals)])
