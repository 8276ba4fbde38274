"""Whose clock is wrong: a node's that is ahead, or the receiver's, if most nodes are.

Times are passed in. There may be as many names of nodes as a sender makes up: all is bounded.
"""

from __future__ import annotations

import heapq
import logging
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Collection

    import polars as pl

# Nodes that are known at once: those heard last.
_MOST_NODES: Final = 10_000
# A node that is silent for so long has no say any more.
_SILENT_S: Final = 3600
# One node cannot outvote the receiver. It is over when fewer than a third are ahead; in between all
# stays as it is.
_FEWEST_AHEAD: Final = 2
_TELL_EVERY_S: Final = 60
# A node whose logs are not dropped for so long is told to be right again.
_CALM_S: Final = 600
_MOST_NAMED: Final = 10
_LONGEST_NAME: Final = 80
_NS_PER_S: Final = 10**9
_NEVER_S: Final = float("-inf")


@dataclass(slots=True)
class _Node:
    """What is known of a node; `offset_ns` is how far it was ahead when that was seen last."""

    name: str
    heard_s: float
    is_ahead: bool = False
    offset_ns: int = 0
    dropped_logs: int = 0
    dropped_s: float = _NEVER_S
    is_told: bool = False

    def __str__(self) -> str:
        name = "".join(one if one.isprintable() else "?" for one in self.name[:_LONGEST_NAME])
        dropped = f" ({self.dropped_logs:,} logs)" if self.dropped_logs else ""
        return f"{name} by {self.offset_ns / _NS_PER_S:,.0f} s{dropped}"


class NodeClocks:
    """Decides which of the logs that are ahead of their arrival count.

    They are dropped, as the clocks of their nodes are wrong. But while most nodes are ahead, at
    least two, it is the receiver's clock, and all logs count. A node is ahead if most of its
    messages in a commit have such logs. Times are of any clock that does not go back.
    """

    def __init__(self) -> None:
        self.is_receiver_behind = False
        self._nodes: dict[str, _Node] = {}
        self._was_receiver_behind = False
        self._told_behind = False
        self._told_s = {"receiver": _NEVER_S, "begin": _NEVER_S, "end": _NEVER_S}

    def keeps_ahead(self, clocks: pl.DataFrame, now_s: float) -> bool:
        """Tell whether the logs count that are ahead, of what one commit adds.

        `clocks` has CLOCKS_SCHEMA, with each node once.
        """
        self._hear(clocks, now_s)
        self._decide()
        if self.is_receiver_behind:
            return True
        for name, logs in clocks.filter(clocks["ahead_logs"] > 0)["node", "ahead_logs"].rows():
            if name in self._nodes:
                self._nodes[name].dropped_logs += logs
                self._nodes[name].dropped_s = now_s
        return False

    def tell(self, now_s: float) -> None:
        """Write what has begun and what is over, each at most once a minute."""
        if self.is_receiver_behind != self._told_behind and self._is_due("receiver", now_s):
            self._tell_receiver()
        dropping = [one for one in self._nodes.values() if one.dropped_s > _NEVER_S]
        calm_s = now_s - _CALM_S
        begun = [one for one in dropping if not one.is_told and one.dropped_s >= calm_s]
        if begun and self._is_due("begin", now_s):
            event = "clocks of nodes are ahead, their logs are dropped"
            tell(logging.WARNING, event, nodes=_listed(begun))
            for one in begun:
                one.is_told = True
        ended = [one for one in dropping if one.is_told and one.dropped_s < calm_s]
        if ended and self._is_due("end", now_s):
            event = "logs of nodes are no longer dropped for their clocks"
            tell(logging.INFO, event, nodes=_listed(ended))
            for one in ended:
                one.is_told = False

    def warning(self) -> str:
        """Say what came of wrong clocks so far; the empty string for nothing."""
        said = []
        if self._was_receiver_behind:
            said.append(
                "the receiver's clock was behind those of most nodes, nothing was dropped for it: "
                f"{_listed(self._ahead())}"
            )
        dropping = [one for one in self._nodes.values() if one.dropped_logs]
        if dropping:
            logs = sum(one.dropped_logs for one in dropping)
            said.append(
                f"clocks of nodes are ahead, {logs:,} of their logs were dropped: "
                f"{_listed(dropping)}"
            )
        return "; ".join(said)

    def _hear(self, clocks: pl.DataFrame, now_s: float) -> None:
        for row in clocks.top_k(_MOST_NODES, by="messages").iter_rows(named=True):
            node = self._nodes.setdefault(row["node"], _Node(row["node"], now_s))
            node.heard_s = now_s
            node.is_ahead = 2 * row["ahead_messages"] > row["messages"]
            if row["offset_ns"] is not None:
                node.offset_ns = row["offset_ns"]
        heard = (one for one in self._nodes.values() if now_s - one.heard_s <= _SILENT_S)
        kept = heapq.nlargest(_MOST_NODES, heard, key=attrgetter("heard_s"))
        if len(kept) < len(self._nodes):
            self._nodes = {one.name: one for one in kept}

    def _decide(self) -> None:
        ahead = len(self._ahead())
        if ahead >= _FEWEST_AHEAD and 2 * ahead > len(self._nodes):
            self.is_receiver_behind = self._was_receiver_behind = True
        elif 3 * ahead < len(self._nodes):
            self.is_receiver_behind = False

    def _ahead(self) -> list[_Node]:
        return [one for one in self._nodes.values() if one.is_ahead]

    def _tell_receiver(self) -> None:
        self._told_behind = self.is_receiver_behind
        if self.is_receiver_behind:
            event = "clock of the receiver is behind those of most nodes, nothing is dropped for it"
            ahead = self._ahead()
            facts = {"ahead": len(ahead), "of": len(self._nodes), "nodes": _listed(ahead)}
            tell(logging.ERROR, event, **facts, remedy="set the clock of this machine right")
        else:
            tell(logging.INFO, "clock of the receiver agrees with most nodes again")

    def _is_due(self, kind: str, now_s: float) -> bool:
        if now_s - self._told_s[kind] < _TELL_EVERY_S:
            return False
        self._told_s[kind] = now_s
        return True


def _listed(nodes: Collection[_Node]) -> str:
    """Name the nodes that are furthest ahead, and how many others there are."""
    first = heapq.nlargest(_MOST_NAMED, nodes, key=attrgetter("offset_ns"))
    others = len(nodes) - len(first)
    return ", ".join([*map(str, first), *([f"{others:,} others"] if others else [])])
