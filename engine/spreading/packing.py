"""What processes hand to each other, as bytes: frames as Arrow, everything else as Python has it.

To be read only of processes that this one has started, or trusts as much: reading runs code.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.states import KEY, MINUTE, VALUE, ScopeStates

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROTOCOL: Final = 5


def pack(value: object) -> bytes:
    """Return a value as bytes."""
    content = io.BytesIO()
    _Packer(content, _PROTOCOL).dump(value)
    return content.getvalue()


def unpack(content: bytes | memoryview) -> Any:  # noqa: ANN401 - whatever was packed
    """Return the value."""
    return pickle.loads(content)  # noqa: S301 - of this program's own processes


def _frame(content: bytes) -> pl.DataFrame:
    return pl.read_ipc(io.BytesIO(content))


def _series(content: bytes) -> pl.Series:
    return _frame(content).to_series()


def _scope_states(
    scalars: pl.DataFrame, split: dict[str, tuple[pl.DataFrame, pl.Series]]
) -> ScopeStates:
    names = scalars[:, : scalars.get_column_index(MINUTE) + 1]
    keyed = {
        name: names[row].with_columns(entries.get_columns())
        for name, (entries, row) in split.items()
    }
    rows = {name: row for name, (_, row) in split.items()}
    return ScopeStates(scalars, keyed, rows)


def _reduced(states: ScopeStates) -> tuple[object, ...]:
    if states.rows is None:
        return ScopeStates, (states.scalars, dict(states.keyed))
    # Names that keyed states have of the rows that they split are not written again.
    split = {
        name: (frame.select(KEY, VALUE), states.rows[name]) for name, frame in states.keyed.items()
    }
    return _scope_states, (states.scalars, split)


def _read_only(content: dict[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(content)


def _content(frame: pl.DataFrame) -> bytes:
    return frame.write_ipc(None).getvalue()


class _Packer(pickle.Pickler):
    # One column after another, as Polars does it, takes ten times as long.
    dispatch_table = {  # noqa: RUF012 - as pickle declares it
        **copyreg.dispatch_table,
        pl.DataFrame: lambda frame: (_frame, (_content(frame),)),
        pl.Series: lambda series: (_series, (_content(series.to_frame()),)),
        ScopeStates: _reduced,  # type: ignore[dict-item]
        MappingProxyType: lambda mapping: (_read_only, (dict(mapping),)),
    }
