"""Store: one commit of states to a DuckDB file, beside decoding the logs they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frame.contest import Benchmark, Call, Contest
from frame.hours import copy_empty_store, views_answer
from frame.stages import Stages, beside_bare_decode

from framewalk.engine import Store

if TYPE_CHECKING:
    from pathlib import Path

    from frame.contest import Answer, Context


@dataclass
class Commits:
    """Commits the same states to a new copy of an empty store each time."""

    context: Context
    stages: Stages
    path: Path
    store: Store | None = field(default=None)

    def open(self) -> None:
        """Open a copy of the empty store."""
        copy_empty_store(self.context, self.stages.plan, self.path)
        self.store = Store(self.path, self.stages.plan)

    def commit(self) -> None:
        """Commit and close, so that all is in the file."""
        assert self.store is not None
        self.store.commit(None, self.stages.capture.path, [], self.stages.states)
        self.store.close()

    def answer(self, _result: None) -> Answer:
        """Read the views back."""
        return views_answer(self.path)


def benchmark(context: Context) -> Benchmark:
    """Commit the states of the messages at hand."""
    stages = Stages(context)
    commits = Commits(context, stages, context.folder / "filled.duckdb")
    assert stages.states.scopes
    work = Call("commit", stages.logs, commits.commit, commits.answer, commits.open)
    limited_by = (
        "statements, not rows: a table per scope is registered, inserted and written in one "
        "transaction, then the file is checkpointed as it is closed."
    )
    rivals = [beside_bare_decode(stages)]
    return Benchmark([Contest("store commit", "logs", work, limited_by, rivals)])
