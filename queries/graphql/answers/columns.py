"""Many objects of one type, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Columns:
    """A list of objects: a column of values per field, all as long as each other."""

    values: Mapping[str, list[Any]]
