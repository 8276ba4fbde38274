"""What an engine does about what is asked of it: definitions are taken whole, or not at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import FramewalkError, InputError
from framewalk.engine.oal import did_you_mean
from framewalk.engine.remaking import forget_unfinished
from framewalk.engine.telling import tell
from framewalk.server.changing.inforce import Pending
from framewalk.server.changing.requests import Answer, State, answer, take_request

if TYPE_CHECKING:
    from framewalk.engine.oal import Plan
    from framewalk.engine.store import Store
    from framewalk.server.changing.inforce import Changes, InForce, Sources
    from framewalk.server.changing.remade import Remaking
    from framewalk.server.changing.requests import Request

_MINUTE_S: Final = 60
_EVER: Final = 2**33
_LONGEST: Final = 2_000
# What is published can only be added to.
_SHARED: Final = "this server publishes what it computes, with definitions that all engines share"
_START_AGAIN: Final = "start all engines with others, new stores and another table"
_LOST: Final = (
    "what was taken is damaged, and its files cannot be read; the definitions that are configured "
    "are in force: mend the files, and apply them again"
)


class Deciding:
    """Answers requests and SIGHUP; both tell whether the engine is to be started again for it.

    What an engine has computed that `is_shared` is neither replaced nor computed otherwise.
    """

    def __init__(
        self,
        store: Store,
        in_force: InForce,
        remaking: Remaking,
        now_s: float,
        *,
        is_shared: bool = False,
    ) -> None:
        self._is_shared = is_shared
        self._store = store
        self._in_force = in_force
        self._remaking = remaking
        if in_force.has_changed:
            forget_unfinished(store)
        if in_force.lost is not None and in_force.lost.request:
            answer(store.path, Answer(in_force.lost.request, State.REFUSED, _LOST))
        if in_force.pending is not None:
            self._settle(in_force.pending, now_s)

    def _settle(self, pending: Pending, now_s: float) -> None:
        """Say that definitions are in force, and have metrics made again that have changed."""
        if pending.recompute_s and pending.metrics:
            first = int((now_s - pending.recompute_s) // _MINUTE_S)
            self._remaking.ask(pending.request, pending.metrics, first, _EVER)
        try:
            self._in_force.settled()
        except OSError as error:
            # It is done once more by the next engine, which changes nothing.
            tell(logging.WARNING, "definitions not noted as in force", problem=error)
        if pending.request:
            answer(self._store.path, Answer(pending.request, State.APPLIED))

    def look(self) -> bool:
        """Do what a command asks."""
        request = take_request(self._store.path)
        if request is None:
            return False
        if request.oal_paths:
            return self._decide(request)
        if self._is_shared:
            answer(self._store.path, Answer(request.name, State.REFUSED, str(self._shared())))
            return False
        known = [metric.name for metric in self._in_force.plan.metrics]
        for name in request.metrics:
            if name not in known:
                hint = did_you_mean(name, known) or "see FROM metrics"
                problem = str(InputError(name, "this server computes no such metric", hint))
                answer(self._store.path, Answer(request.name, State.REFUSED, problem))
                return False
        stretch = request.first, request.end
        self._remaking.ask(request.name, request.metrics, *stretch, resolves=request.resolves)
        answer(self._store.path, Answer(request.name, State.TAKEN))
        return False

    def read_again(self) -> bool:
        """Take the definitions that the files have by now, if they are others and have no error."""
        try:
            sources, plan = self._in_force.candidate()
            changes = self._in_force.changes(self._store, plan)
            if not changes:
                return False
            self._take(sources, plan, Pending("", (*changes.new, *changes.changed)), changes)
        except (FramewalkError, OSError) as error:
            problem = str(error).splitlines()[0]
            tell(logging.ERROR, "definitions not taken, the old ones stay", problem=problem)
            return False
        return True

    def _decide(self, request: Request) -> bool:
        try:
            sources, plan = self._in_force.candidate(request.oal_paths)
            changes = self._in_force.changes(self._store, plan)
            told, same = changes.named(), changes.unchanged
            if request.only_tell:
                answer(self._store.path, Answer(request.name, State.TOLD, "", told, same))
                return False
            metrics = (*changes.new, *changes.changed)
            pending = Pending(request.name, metrics, request.recompute_s)
            self._take(sources, plan, pending, changes)
        except (FramewalkError, OSError) as error:
            answer(self._store.path, Answer(request.name, State.REFUSED, str(error)))
            return False
        answer(self._store.path, Answer(request.name, State.TAKEN, "", told, same))
        return True

    def _shared(self) -> InputError:
        return InputError(self._store.path, _SHARED, _START_AGAIN)

    def _take(self, sources: Sources, plan: Plan, pending: Pending, changes: Changes) -> None:
        if self._is_shared:
            raise self._shared()
        self._in_force.take(sources, plan, pending)
        tell(
            logging.INFO,
            "definitions are taken, the engine is started again with them",
            unchanged=changes.unchanged,
            **{
                name.replace(" ", "_"): _listed(names)
                for name, names in changes.named().items()
                if names
            },
        )


def _listed(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(names):,} in all)"
