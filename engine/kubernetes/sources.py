"""Where what is known of a cluster comes from: a file or a folder, and the cluster's name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

_NAMED: Final = re.compile(r"(?P<cluster>[^=/\\]+)=(?P<path>.+)", re.DOTALL)


class Source(NamedTuple):
    """A dump, and the `clusterName` of the nodes that it is for (empty: all that have no other)."""

    cluster: str
    path: Path

    def __str__(self) -> str:
        return f"{self.cluster}={self.path}" if self.cluster else str(self.path)


def source_of(text: str | Path | Source) -> Source:
    """Read `PATH` or `NAME=PATH`; what is there as it is written is a path."""
    if isinstance(text, Source):
        return text
    named = _NAMED.fullmatch(str(text))
    if named is None or Path(text).exists():
        return Source("", Path(text))
    return Source(named["cluster"].strip(), Path(named["path"].strip()))


class Context(NamedTuple):
    """A context of a kubeconfig, and the `clusterName` of the nodes that it is for."""

    cluster: str
    context: str


def context_of(text: str) -> Context:
    """Read `CONTEXT` or `NAME=CONTEXT`; an empty context is the current one."""
    cluster, sign, context = text.partition("=")
    return Context(cluster.strip(), context.strip()) if sign else Context("", text.strip())
