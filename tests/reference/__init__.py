"""The slow reference: the written semantics in plain Python, sharing no code with the engine."""

from reference.analysis import (
    REASONS,
    RESOLUTIONS,
    VIEWS,
    DroppedLog,
    Result,
    analyse,
    drop_counts,
)
from reference.capture import Row, read_capture_rows
from reference.definitions import (
    Condition,
    Definition,
    parse_condition,
    read_definitions,
)
from reference.dump import Directory, Found, load_dump

__all__ = [
    "REASONS",
    "RESOLUTIONS",
    "VIEWS",
    "Condition",
    "Definition",
    "Directory",
    "DroppedLog",
    "Found",
    "Result",
    "Row",
    "analyse",
    "drop_counts",
    "load_dump",
    "parse_condition",
    "read_capture_rows",
    "read_definitions",
]
