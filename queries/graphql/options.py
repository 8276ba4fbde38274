"""What the GraphQL endpoint is made of, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.queries.serving import ServingOptions

if TYPE_CHECKING:
    from pathlib import Path

_EDITS_SUFFIX: Final = ".dashboards.json"


def edits_beside(store_path: Path) -> Path:
    """Return the file in which edited dashboards of a store are kept."""
    return store_path.with_name(store_path.name + _EDITS_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlOptions(ServingOptions):
    """The options of an endpoint, what it tells of the store, and bounds of a document.

    Minutes, hours and days of metrics are kept for `ttl_days`, logs for `record_ttl_days`.
    Dashboards are those of `template_paths`, and of the file `template_edits`, where it is one, in
    which edits are kept if it `keeps_edits`. A document
    has at most `most_aliases` fields beside each other at its top, and is nested `most_depth` deep.
    """

    ttl_days: tuple[int, int, int] = (7, 7, 7)
    record_ttl_days: int = 3
    template_paths: tuple[Path, ...] = ()
    template_edits: Path | None = None
    keeps_edits: bool = True
    most_bytes: int = 1 << 20
    most_aliases: int = 2_000
    most_depth: int = 12
