"""Phase 1 and 2 over flattened logs, beside other ways to compute the same 426 values.

The rivals compute finished values, the engine states; what finishing costs is in the second row,
where the engine commits its states to a store and reads every value of the views.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest, Rival
from frame.hours import open_empty_store
from frame.stages import Stages
from rivals import naive_polars, plain_sql
from rivals.naive_polars import NaivePolars
from rivals.plain_sql import PlainSql
from rivals.row_by_row import RowByRow
from rivals.values import comparable, store_values, values_answer

from framewalk.engine.stages.entity_states import roll_up
from framewalk.engine.stages.flattening import concat_logs, flatten
from framewalk.engine.stages.peer_states import log_states
from framewalk.engine.stages.resolving import resolve
from framewalk.engine.views import states_table

if TYPE_CHECKING:
    import polars as pl
    from frame.contest import Answer, Context, Runner

    from framewalk.engine import Plan, States, Store
    from framewalk.engine.stages.resolving import ResolvedLogs


@dataclass(frozen=True, slots=True)
class Engine:
    """Both phases over logs in pieces, and a store to finish states in."""

    logs: list[ResolvedLogs]
    plan: Plan
    store: Store

    def states(self) -> States:
        """Compute the states of all scopes."""
        return roll_up([log_states(logs, self.plan) for logs in self.logs], self.plan)

    def values(self) -> list[pl.DataFrame]:
        """Compute all values: states, a commit, and every row of the views."""
        return self.finish(self.states())

    def finish(self, states: States) -> list[pl.DataFrame]:
        """Commit states and read every value in long form."""
        self.store.commit(None, Path("capture"), [], states)
        return store_values(self.store, self.plan)

    def empty(self) -> None:
        """Forget what was committed."""
        for scope in self.plan.scopes:
            self.store.query(f"DELETE FROM {states_table(scope.scope)}")  # noqa: S608 - a table's name

    def states_answer(self, states: States) -> Answer:
        """Digest the values that states make."""
        self.empty()
        return values_answer(self.finish(states))


def benchmark(context: Context) -> Benchmark:
    """Compute all values of the sample, and of a smaller one against plain Python."""
    stages = Stages(context)
    plan = comparable(stages.plan)
    store = open_empty_store(context, plan, "engine.duckdb")
    engine = Engine(stages.resolved, plan, store)
    whole = resolve(concat_logs([flatten(one) for one in stages.contexts]), stages.entities)
    few = Stages(context, context.size.row_messages)
    logs = stages.logs
    states = Call("both phases", logs, engine.states, engine.states_answer)
    values = Call("engine, values", logs, engine.values, values_answer, engine.empty)
    sql = Rival(_plain_sql(whole, plan, logs))
    naive = Rival(_naive_polars(whole, plan, logs))
    return Benchmark(
        [
            Contest(
                "engine: phase 1 and 2",
                "logs",
                states,
                "the group-bys of phase 1; phase 2 is a fixed 0.1 s or so.",
                [sql, naive, Rival(_row_by_row(few), same_answer=False)],
            ),
            Contest(
                "engine, finished values read",
                "logs",
                values,
                "DuckDB's planning of the views: six queries of up to 127 columns each, whatever "
                "the number of logs.",
                [sql],
            ),
        ]
    )


def _plain_sql(logs: ResolvedLogs, plan: Plan, count: int) -> Runner:
    return Call(
        "plain DuckDB SQL",
        count,
        PlainSql(logs, plan).run,
        lambda found: values_answer(plain_sql.in_long_form(found)),
    )


def _naive_polars(logs: ResolvedLogs, plan: Plan, count: int) -> Runner:
    return Call(
        "naive Polars",
        count,
        NaivePolars(logs, plan).run,
        lambda found: values_answer(naive_polars.in_long_form(found)),
    )


def _row_by_row(few: Stages) -> Runner:
    """Python takes fewer logs; that its answer is right is checked here, against the SQL."""
    logs = resolve(concat_logs([flatten(one) for one in few.contexts]), few.entities)
    plan = comparable(few.plan)
    rival = RowByRow(logs, plan)
    by_sql = plain_sql.in_long_form(PlainSql(logs, plan).run())
    assert values_answer([rival.run()]) == values_answer(by_sql), "row by row differs from SQL"
    return Call("row by row in Python", few.logs, rival.run, lambda found: values_answer([found]))
