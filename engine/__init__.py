"""framewalk's engine: from captured access-log messages to metrics in DuckDB.

    from framewalk.engine import Store, load_plan, read_entities, replay

    entities = read_entities("kubectl.yaml")
    with Store("metrics.duckdb", load_plan()) as store:
        replay(["bookinfo.capture.arrows"], entities, store)
        print(store.query("FROM service_minute").pl())

`partial` and `merge` are the same work as pure functions, without a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from framewalk.engine.capture import CAPTURE_SCHEMA, CaptureReader, CaptureWriter
    from framewalk.engine.counters import Counters
    from framewalk.engine.definitions import load_plan
    from framewalk.engine.entities import Entities, read_entities
    from framewalk.engine.errors import (
        CaptureError,
        EntitiesError,
        FramewalkError,
        InputError,
        StoreError,
        StoreLockedError,
        StoreVersionError,
    )
    from framewalk.engine.oal.diagnostics import DefinitionError
    from framewalk.engine.oal.plan import Plan
    from framewalk.engine.pipeline import partial
    from framewalk.engine.replayer import ReplayProgress, ReplaySummary, replay
    from framewalk.engine.states import ScopeStates, States, merge
    from framewalk.engine.store import Store, open_for_reading

__all__ = [
    "CAPTURE_SCHEMA",
    "CaptureError",
    "CaptureReader",
    "CaptureWriter",
    "Counters",
    "DefinitionError",
    "Entities",
    "EntitiesError",
    "FramewalkError",
    "InputError",
    "Plan",
    "ReplayProgress",
    "ReplaySummary",
    "ScopeStates",
    "States",
    "Store",
    "StoreError",
    "StoreLockedError",
    "StoreVersionError",
    "load_plan",
    "merge",
    "open_for_reading",
    "partial",
    "read_entities",
    "replay",
]

# A name is imported when it is used: who only receives needs neither Polars nor DuckDB.
_MODULES: Final = {
    "capture": ("CAPTURE_SCHEMA", "CaptureReader", "CaptureWriter"),
    "counters": ("Counters",),
    "definitions": ("load_plan",),
    "entities": ("Entities", "read_entities"),
    "errors": (
        "CaptureError",
        "EntitiesError",
        "FramewalkError",
        "InputError",
        "StoreError",
        "StoreLockedError",
        "StoreVersionError",
    ),
    "oal.diagnostics": ("DefinitionError",),
    "oal.plan": ("Plan",),
    "pipeline": ("partial",),
    "replayer": ("ReplayProgress", "ReplaySummary", "replay"),
    "states": ("ScopeStates", "States", "merge"),
    "store": ("Store", "open_for_reading"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
