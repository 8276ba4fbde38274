"""Results as Prometheus writes them: JSON, made of columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from framewalk.queries.promql.aggregation import number_text
from framewalk.queries.promql.series import Scalar, Text, Vector, Windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.queries.promql.series import (
        Bools,
        Floats,
        Ints,
        Labels,
        Notes,
        PromqlError,
        Timeline,
        Value,
    )

_LARGEST_EXACT: Final = 2.0**53
_LONG: Final = "e"


def success(data: str, notes: Notes | None = None) -> bytes:
    """Return an answer; `data` is JSON already."""
    told = ""
    if notes is not None and notes.warnings:
        told += f',"warnings":{json.dumps(list(notes.warnings))}'
    if notes is not None and notes.infos:
        told += f',"infos":{json.dumps(list(notes.infos))}'
    return f'{{"status":"success","data":{data}{told}}}'.encode()


def failure(kind: str, error: PromqlError | str) -> bytes:
    """Return an error."""
    return json.dumps({"status": "error", "errorType": kind, "error": str(error)}).encode()


def result(value: Value, timeline: Timeline) -> str:
    """Return what a query amounts to as JSON."""
    kind, shown = _result(value, timeline)
    return f'{{"resultType":"{kind}","result":{shown}}}'


def _result(value: Value, timeline: Timeline) -> tuple[str, str]:
    times = timeline.times_ms
    if isinstance(value, Scalar) and timeline.is_instant:
        return "scalar", f"[{_time(times[0])},{json.dumps(number_text(float(value.values[0])))}]"
    if isinstance(value, Text):
        return "string", f"[{_time(times[0])},{json.dumps(value.value)}]"
    if isinstance(value, Scalar):
        value = Vector(((),), value.values[np.newaxis, :], np.ones((1, len(times)), np.bool_))
    if isinstance(value, Windows):
        inside = np.zeros_like(value.present)
        inside[:, value.first[0] : value.end[0]] = True
        return "matrix", _matrix(value.labels, value.values, value.present & inside, value.times_ms)
    if timeline.is_instant:
        return "vector", _vector(value, times)
    return "matrix", _matrix(*_ordered(value), times)


def _ordered(vector: Vector) -> tuple[Sequence[Labels], Floats, Bools]:
    """Return series by their labels, as Prometheus has them in a matrix."""
    order = sorted(range(len(vector.labels)), key=vector.labels.__getitem__)
    labels = [vector.labels[row] for row in order]
    return labels, vector.values[order], vector.present[order]


def _vector(vector: Vector, times: Ints) -> str:
    points = _points(vector.values, vector.present, times).to_pylist()
    held = np.flatnonzero(vector.present[:, 0]).tolist()
    series = (
        f'{{"metric":{_metric(vector.labels[row])},"value":{point}}}'
        for row, point in zip(held, points, strict=True)
    )
    return f"[{','.join(series)}]"


def _matrix(labels: Sequence[Labels], values: Floats, present: Bools, times: Ints) -> str:
    counts = present.sum(axis=1)
    points = _points(values, present, times)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), type=pa.int32())
    lists = pa.ListArray.from_arrays(offsets, points)
    joined = pc.binary_join(lists, ",").to_pylist()
    series = (
        f'{{"metric":{_metric(own)},"values":[{text}]}}'
        for own, text, count in zip(labels, joined, counts.tolist(), strict=True)
        if count
    )
    return f"[{','.join(series)}]"


def _points(values: Floats, present: Bools, times: Ints) -> pa.StringArray:
    """Return `[time,"value"]` of all values that are there, series by series."""
    columns = np.nonzero(present)[1]
    shown = pa.array([_time(one) for one in times.tolist()], type=pa.string())
    at = shown.take(pa.array(columns))
    joined: Any = pc.binary_join_element_wise(
        "[", at, ',"', number_texts(values[present]), '"]', ""
    )
    return joined


def number_texts(values: Floats) -> pa.StringArray:
    """Return numbers as text, as `number_text` does one by one."""
    whole = np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < _LARGEST_EXACT)
    whole &= ~((values == 0) & np.signbit(values))
    texts: Any = pc.cast(pa.array(np.where(whole, values, 0).astype(np.int64)), pa.string())
    others = np.flatnonzero(~whole)
    if not len(others):
        return texts
    shown = pc.cast(pa.array(values[others]), pa.string())
    odd = ~np.isfinite(values[others]) | np.asarray(pc.match_substring(shown, _LONG))
    odd |= np.asarray(pc.match_substring(shown, _LONG.upper()))
    if odd.any():
        # Few have an exponent, or are no number.
        plain = shown.to_pylist()
        for row in np.flatnonzero(odd).tolist():
            plain[row] = number_text(float(values[others[row]]))
        shown = pa.array(plain, type=pa.string())
    replaced: Any = pc.replace_with_mask(texts, pa.array(~whole), shown)
    return replaced


def _metric(labels: Labels) -> str:
    return json.dumps(dict(labels), separators=(",", ":"))


def _time(time_ms: int) -> str:
    seconds, rest = divmod(int(time_ms), 1_000)
    return str(seconds) if not rest else f"{time_ms / 1_000:.3f}"
