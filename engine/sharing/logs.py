"""The table of logs that engines share, beside that of their states: what archives got, by commit.

One table has the rows of all kinds, so that what a commit has archived is one transaction: columns
of other kinds are null. Its address is that of the table of states, and a folder more; that table
says by its id which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive import (
    KINDS,
    NS_PER_MINUTE,
    REQUESTS_ONLY,
    TABLES,
    UNARCHIVED,
    arrow_schema,
)
from framewalk.engine.errors import TableError
from framewalk.engine.sharing.layout import COMMIT, DAY, ENGINE, Layout
from framewalk.engine.sharing.table import SharedTable
from framewalk.engine.states import MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTES: Final = (REQUESTS_ONLY, UNARCHIVED)
# What an outbox has of logs.
LOG_KINDS: Final = frozenset({*KINDS, *NOTES})
_FOLDER: Final = "logs"
_KIND: Final = "kind"
_TIME_NS: Final = "time_ns"
_TIME: Final = "time"
_LAYOUT_VERSION: Final = 1
_VERSION: Final = "framewalk.logs_version"
_OTHER: Final = "its table of logs is gone, or another one than it was made with"


@dataclass(frozen=True, slots=False)
class LogLayout(Layout):
    """The columns of the table of logs: those of all kinds of the archive, `time_ns` for `time`.

    A row of NOTES has a minute, as the time that it begins at.
    """

    @cached_property
    def schema(self) -> pl.Schema:
        """All columns of the table."""
        own: list[tuple[str, pl.DataType]] = [(ENGINE, pl.String()), (COMMIT, pl.Int64())]
        own += [(_KIND, pl.String()), (_TIME_NS, pl.Int64()), (DAY, pl.String())]
        kinds = [pl.Schema(arrow_schema(kind)) for kind in KINDS]
        every = [item for one in kinds for item in one.items() if item[0] != _TIME]
        return pl.Schema(dict([*own, *every]))

    def shared(self, view: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of a kind, or of NOTES, as rows of the table, without ENGINE and COMMIT."""
        time_ns = pl.col(MINUTE) * NS_PER_MINUTE if view in NOTES else pl.col(_TIME).cast(pl.Int64)
        named = rows.select(
            pl.lit(view).alias(_KIND),
            time_ns.alias(_TIME_NS),
            *(name for name in self.schema if name in rows.columns),
        )
        day = pl.from_epoch(_TIME_NS, "ns").dt.date().cast(pl.String)
        whole = named.with_columns(day.alias(DAY))
        return whole.cast({name: self.schema[name] for name in whole.columns})

    def archived(self, rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield the rows of each kind, ENGINE first, with the columns that the archive has."""
        time = pl.col(_TIME_NS).cast(pl.Datetime("ns")).alias(_TIME)
        for kind in KINDS:
            own = rows.filter(pl.col(_KIND) == kind)
            names = [column.name for column in TABLES[kind] if column.name != _TIME]
            if own.height:
                yield kind, own.select(ENGINE, time, *names)

    def noted(self, rows: pl.DataFrame, note: str) -> set[int]:
        """Return the minutes (since 1970) that a note names."""
        own = rows.filter(pl.col(_KIND) == note)
        return set(own[_TIME_NS] // NS_PER_MINUTE)


LOGS: Final = LogLayout(MappingProxyType({}), MappingProxyType({}))


class LogsTable(SharedTable):
    """The table of logs beside a table of states, by the address of that one."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri.rstrip('/')}/{_FOLDER}")

    def create_logs(self) -> None:
        """Make the table, unless somebody has made it meanwhile."""
        self._make(LOGS, {_VERSION: str(_LAYOUT_VERSION)})

    def open_beside(self, states: SharedTable) -> None:
        """Take the table as it is by now; `states` is open, and has logs.

        Raises TableError where it is not the one that belongs there.
        """
        if not self.open() or self.id != states.logs_id:
            raise TableError(states.uri, _OTHER, "restore both tables, or name another place")

    def _read_layout(self) -> Layout:
        version = self._configuration.get(_VERSION)
        if version != str(_LAYOUT_VERSION):
            problem = f"the version of its logs is {version}, and {_LAYOUT_VERSION} is known here"
            raise TableError(self.uri, problem, "use the same framewalk everywhere")
        return LOGS
