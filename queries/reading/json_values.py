"""Values of DuckDB as JSON, the same from a server and from a file."""

from __future__ import annotations

import json
import math
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def unique_names(columns: Sequence[str]) -> list[str]:
    """Name repeated columns a, a_1, a_2, past the names that other columns have."""
    names: list[str] = []
    for column in columns:
        name, number = column, 0
        while name in names or (number and name in columns):
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def as_json(value: object, indent: int | None = None, *, ascii_only: bool = False) -> str:
    """Return a value of DuckDB as JSON."""
    return json.dumps(plain(value), ensure_ascii=ascii_only, allow_nan=False, indent=indent)


def plain(value: object) -> object:
    """Give a value of DuckDB as one that JSON has."""
    match value:
        case None | bool() | int() | str():
            return value
        case dict():
            return {_as_key(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _as_number(value)
    return _as_word(value)


def _as_number(value: Decimal) -> float | str:
    """Return a text where a number of JSON would lose digits in most of its readers."""
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if Decimal(str(number)) == value else str(value)


def _as_word(value: object) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _as_interval(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _as_interval(value: timedelta) -> str:
    """Return a text that DuckDB reads as the same interval."""
    sign = "-" if value < timedelta() else ""
    clock = abs(value) % timedelta(days=1)
    return f"{sign}{abs(value).days} days {sign}{clock}"


def _as_key(key: object) -> str:
    known = plain(key)
    return known if isinstance(known, str) else as_json(known)
