"""Stage 4, resolve: connections to services and pods, beside the decoding of their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest
from frame.stages import Stages, beside_bare_decode, logs_answer

from framewalk.engine.stages.flattening import flatten
from framewalk.engine.stages.resolving import resolve

if TYPE_CHECKING:
    from frame.contest import Context


def benchmark(context: Context) -> Benchmark:
    """Resolve the connections of flattened logs."""
    stages = Stages(context)
    flattened = [flatten(one) for one in stages.contexts]
    work = Call(
        "resolve",
        stages.logs,
        lambda: [resolve(one, stages.entities) for one in flattened],
        logs_answer,
    )
    limited_by = (
        "finding the distinct connections of a piece and giving each log the number of its "
        "peers: a sort of numbers, a binary search and a gather per log."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("resolve", "logs", work, limited_by, rivals)])
