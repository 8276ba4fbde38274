"""Merging: the states of each piece into one, beside decoding the logs they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest
from frame.stages import Stages, beside_bare_decode, states_answer

from framewalk.engine.stages.entity_states import roll_up
from framewalk.engine.states import merge

if TYPE_CHECKING:
    from frame.contest import Context


def benchmark(context: Context) -> Benchmark:
    """Merge states that were rolled up piece by piece, as from several processes."""
    stages = Stages(context)
    parts = [roll_up([part], stages.plan) for part in stages.log_states]
    whole = states_answer(stages.states)
    work = Call("merge", stages.logs, lambda: merge(stages.plan, *parts), states_answer)
    assert states_answer(work.work()) == whole, "merged parts are not the whole"
    limited_by = (
        "the number of Polars calls, not of rows: a group-by per scope and per keyed state."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("merge", "logs", work, limited_by, rivals)])
