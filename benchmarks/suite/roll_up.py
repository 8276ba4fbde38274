"""Stage 5, phase 2: states of peers to states of entities, beside decoding their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest
from frame.stages import Stages, beside_bare_decode, states_answer

from framewalk.engine.stages.entity_states import roll_up

if TYPE_CHECKING:
    from frame.contest import Context


def benchmark(context: Context) -> Benchmark:
    """Roll up the states of all pieces at once, as a replay does before a commit."""
    stages = Stages(context)
    parts = stages.log_states
    work = Call("roll_up", stages.logs, lambda: roll_up(parts, stages.plan), states_answer)
    limited_by = (
        "the number of Polars calls, not of rows: six scopes with up to three sets of conditions "
        "each; so it costs much the same for one piece as for twenty."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("phase 2 (roll-up)", "logs", work, limited_by, rivals)])
