"""Metrics that a running engine makes again, beside its commits: what is asked is in the store.

A queue: one that was cut off goes on with the next engine.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import DamagedLogsError, StoreMemoryError
from framewalk.engine.oal import is_former
from framewalk.engine.remaking import (
    RecomputingOptions,
    Resolving,
    plan_recomputation,
    recompute,
)
from framewalk.engine.telling import tell
from framewalk.server.changing.requests import Answer, State, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from framewalk.engine.archive import Archive
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.store import Store

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS internal.recomputations (name VARCHAR NOT NULL, "
    "metrics VARCHAR[] NOT NULL, first_minute BIGINT NOT NULL, end_minute BIGINT NOT NULL)"
)
# Of tables that an earlier version made.
_ADDED: Final = "ALTER TABLE internal.recomputations ADD COLUMN IF NOT EXISTS resolves BOOLEAN"
_FIRST: Final = "FROM internal.recomputations LIMIT 1"
# Logs that are read until commits have their turn: a second or two.
_LOGS_AT_ONCE: Final = 250_000
_ANSWER_EVERY_S: Final = 0.5


class Remaking:
    """Makes metrics again of what the archive has, some minutes at a time.

    `left` are the minutes that are still to be made. Without an archive nothing is.
    """

    def __init__(self, store: Store, archive: Archive | None, endpoints_per_service: int) -> None:
        self.left = 0
        self._store = store
        self._archive = archive
        self._endpoints_per_service = endpoints_per_service
        self._answer: Answer | None = None
        self._answered_s = 0.0
        self._resolving: Resolving | None = None
        store.run(_TABLE)
        store.run(_ADDED)
        self._is_asked = bool(store.run(_FIRST))

    def ask(
        self,
        name: str,
        metrics: Sequence[str],
        first: int,
        end: int,
        *,
        resolves: bool = False,
    ) -> None:
        """Have metrics (all without any) made again; the request of a name counts once.

        If it `resolves`, archived logs without a name get those that are known by now before.
        """
        rows = self._store.run("SELECT 1 FROM internal.recomputations WHERE name = ?", [name])
        if not rows:
            sql = "INSERT INTO internal.recomputations VALUES (?, ?, ?, ?, ?)"
            self._store.run(sql, [name, list(metrics), first, end, resolves])
        self._is_asked = True

    def run(self, entities: Entities, until_s: float, on_progress: Callable[[], None]) -> None:
        """Make some minutes, and more until a time of the monotonic clock."""
        while self._is_asked:
            try:
                self._step(entities, on_progress)
            except DamagedLogsError:
                # What they have logs of is not asked for again.
                continue
            except StoreMemoryError as error:
                # Queries have it all.
                tell(logging.WARNING, "metrics not made again, it is tried again", problem=error)
                return
            if time.monotonic() >= until_s:
                return

    def _step(self, entities: Entities, on_progress: Callable[[], None]) -> None:
        rows = self._store.run(_FIRST)
        if not rows:
            self._is_asked, self.left = False, 0
            return
        ((name, metrics, first, end, resolves),) = rows
        if self._archive is None:
            self._finish(
                Answer(name, State.REFUSED, "logs are not archived (FRAMEWALK_ARCHIVE_MODE)")
            )
            return
        known = {metric.name for metric in self._store.plan.metrics}
        names = [one for one in metrics if one in known]
        if metrics and not names:
            self._finish(Answer(name, State.REFUSED, "these metrics are not computed any more"))
            return
        asked = plan_recomputation(self._store, self._archive, names, first, end)
        if self._answer is None or self._answer.name != name:
            shown = sum(not is_former(metric.name) for metric in asked.metrics)
            self._answer = Answer(
                name,
                State.MAKING,
                refused=dict(asked.refused),
                metrics=shown,
                skipped=asked.skipped,
            )
            tell(
                logging.INFO,
                "metrics are made again",
                metrics=shown,
                minutes=len(asked.minutes),
                not_whole=asked.skipped,
                refused=", ".join(asked.refused),
            )
        if not asked.metrics:
            self._finish(replace(self._answer, state=State.DONE))
            return
        if resolves and self._has_names_left(asked.minutes, entities):
            on_progress()
            return
        options = RecomputingOptions(
            endpoints_per_service=self._endpoints_per_service,
            logs_at_once=_LOGS_AT_ONCE,
            at_most_once=True,
            on_progress=lambda _done, _all: on_progress(),
        )
        done = recompute(self._store, self._archive, asked, options)
        minutes = len(asked.minutes)
        made = done.known + done.minutes if done.has_more else minutes
        self.left = minutes - min(made, minutes)
        logs = self._answer.logs + done.logs
        self._answer = replace(self._answer, minutes=minutes, done=min(made, minutes), logs=logs)
        if not done.has_more:
            self._finish(replace(self._answer, state=State.DONE))
        elif time.monotonic() - self._answered_s >= _ANSWER_EVERY_S:
            self._answered_s = time.monotonic()
            answer(self._store.path, self._answer)

    def _has_names_left(self, minutes: Sequence[int], entities: Entities) -> bool:
        """Look at the next file of the archive; tells whether there was one."""
        assert self._archive is not None  # noqa: S101 - tells the type
        assert self._answer is not None  # noqa: S101 - tells the type
        if self._resolving is None:
            self._resolving = Resolving(self._store, self._archive, entities)
        if self._resolving.is_done:
            return False
        self._resolving.step(minutes, time.monotonic())
        self._answer = replace(self._answer, named=self._resolving.named)
        return True

    def _finish(self, last: Answer) -> None:
        with self._store.transaction():
            self._store.run("DELETE FROM internal.recomputations WHERE name = ?", [last.name])
        answer(self._store.path, last)
        self._answer, self._resolving, self.left = None, None, 0
        if last.state is State.DONE:
            tell(logging.INFO, "metrics made again", minutes=last.done, logs=last.logs)
        else:
            tell(logging.WARNING, "metrics are not made again", problem=last.problem)
