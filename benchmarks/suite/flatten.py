"""Stage 3, flatten: nested columns to a row per log, beside the decoding of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest, sums_answer
from frame.stages import Stages, beside_bare_decode

from framewalk.engine.stages.flattening import flatten

if TYPE_CHECKING:
    from frame.contest import Answer, Context

    from framewalk.engine.stages.flattening import LogFrames


def benchmark(context: Context) -> Benchmark:
    """Flatten messages whose streams are followed."""
    stages = Stages(context)
    contexts = stages.contexts
    work = Call("flatten", stages.logs, lambda: [flatten(one) for one in contexts], frames_answer)
    limited_by = (
        "memory bandwidth: each column is read where it lies and written once for the rows of "
        "its operation, then once more with its connection and time."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("flatten", "logs", work, limited_by, rivals)])


def frames_answer(flattened: list[LogFrames]) -> Answer:
    """Digest the log frames."""
    return sums_answer(
        {
            f"{operation} {number}": frame
            for number, one in enumerate(flattened)
            for operation, frame in one.operations.items()
        }
    )
