"""A store of 1,000 services and a day of minutes, widened from one that was replayed.

Each row is one that was replayed, of another service and another minute: some hundred different
rows, in turn. There are services only, which is what queries of a page ask for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.oal.files import load_plan

if TYPE_CHECKING:
    import duckdb

CAPTURE: Final = Path(__file__).parents[2] / "fixtures" / "captures" / "bookinfo"
SERVICES: Final = 1_000
MINUTES: Final = 1_440
# Numbers of entities that no replay gives.
_FIRST_ENTITY: Final = 100_000
_AT_ONCE: Final = 60
_ROWS: Final = """
    INSERT INTO internal.service_minutes BY NAME
    WITH own AS MATERIALIZED (
        SELECT *, row_number() OVER (ORDER BY time_bucket, entity) - 1 AS number
        FROM internal.service_states)
    SELECT own.* EXCLUDE (number) REPLACE ($first + i AS entity,
        $start + to_minutes(m) AS time_bucket)
    FROM range($from, $until) AS minutes(m), range($services) AS services(i)
    JOIN own ON own.number = (i * 7 + m * 13) % (SELECT count(*) FROM own)
    ORDER BY time_bucket, entity
"""


def write_day(path: Path, services: int = SERVICES, minutes: int = MINUTES) -> None:
    """Write a store of so many services and minutes, up to the newest minute that is replayed."""
    with Store(path, load_plan()) as store:
        replay([CAPTURE], read_entities(CAPTURE / "kubectl.yaml"), store)
        _widen(store.connection, services, minutes)


def _widen(connection: duckdb.DuckDBPyConnection, services: int, minutes: int) -> None:
    connection.execute(
        "INSERT INTO internal.service_entities BY NAME "
        "SELECT $first + i AS entity, 'service-' || i || '.shop-' || i % 20 AS service "
        "FROM range($services) AS numbers(i)",
        {"first": _FIRST_ENTITY, "services": services},
    )
    connection.execute(
        "INSERT INTO internal.service_seen BY NAME "
        "SELECT own.* REPLACE ($first + i AS entity) "
        "FROM (FROM internal.service_seen LIMIT 1) AS own, range($services) AS numbers(i)",
        {"first": _FIRST_ENTITY, "services": services},
    )
    ((start,),) = connection.execute(
        "SELECT max(time_bucket) - to_minutes(?) FROM internal.service_states", [minutes - 1]
    ).fetchall()
    for begin in range(0, minutes, _AT_ONCE):
        rows = {"from": begin, "until": min(begin + _AT_ONCE, minutes)}
        given = {"first": _FIRST_ENTITY, "start": start, "services": services}
        connection.execute(_ROWS, rows | given)
