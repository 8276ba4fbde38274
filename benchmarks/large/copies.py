"""A day of a large cluster out of one hour of it: what is rolled up stands again in hours before.

To compute a day of 1,000 services takes an hour or two, and its file 14 GB. What the questions ask
are services and their relations: these are copied, as minutes and as hours, or all scopes. The row
of a day is that of the one hour, so ranges with a whole day in them tell less than there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine import Store, load_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_ASKED: Final = ("service", "service_relation")
_TABLES: Final = ("minutes", "hours")
_AGAIN: Final = """
    INSERT INTO internal.{table}
    SELECT * REPLACE (time_bucket - to_hours($before) AS time_bucket) FROM internal.{table}
    WHERE time_bucket >= (SELECT date_trunc('hour', max(minute)) FROM internal.newest)
"""


def copy_hour(
    path: Path,
    hours: int,
    tell: Callable[[int], None] = lambda _done: None,
    views: Sequence[str] | None = _ASKED,
) -> None:
    """Roll up a store, and copy its newest hour until it has so many; `tell` hears of each.

    Without views all scopes are copied.
    """
    with Store(path, load_plan()) as store:
        store.limit_memory()
        store.compact()
        for before in range(1, hours):
            for view in views or [one.scope.view for one in store.plan.scopes]:
                for table in _TABLES:
                    sql = _AGAIN.format(table=f"{view}_{table}")
                    store.connection.execute(sql, {"before": before})
            tell(before + 1)
        store.checkpoint()
