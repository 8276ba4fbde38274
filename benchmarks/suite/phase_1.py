"""Stage 5, phase 1: logs to states per peers and minute, beside the decoding of the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from frame.contest import Benchmark, Call, Contest, sums_answer
from frame.stages import Stages, beside_bare_decode

from framewalk.engine.stages.peer_states import log_states
from framewalk.engine.states import MINUTE

if TYPE_CHECKING:
    from frame.contest import Answer, Context

    from framewalk.engine.stages.peer_states import PeerStates


def benchmark(context: Context) -> Benchmark:
    """Compute the states of resolved logs."""
    stages = Stages(context)
    resolved = stages.resolved
    work = Call(
        "log_states",
        stages.logs,
        lambda: [log_states(logs, stages.plan) for logs in resolved],
        states_of_peers_answer,
    )
    limited_by = (
        "one group-by per operation with up to 19 aggregations; for HTTP the text of the path "
        "is part of the key and is hashed for every log, twice (percentiles have a pass of "
        "their own)."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("phase 1 (log_states)", "logs", work, limited_by, rivals)])


def states_of_peers_answer(found: list[PeerStates]) -> Answer:
    """Digest the states, the numbers of peers left out."""
    frames = {}
    for number, one in enumerate(found):
        for operation, states in one.operations.items():
            frames[f"{operation} {number}"] = states.scalars.drop("peer")
            for state, frame in states.keyed.items():
                minutes = states.scalars[MINUTE].gather(frame["row"])
                rows = frame.select(minutes.alias(MINUTE), pl.exclude("row"))
                frames[f"{operation} {state} {number}"] = rows
    return sums_answer(frames)
