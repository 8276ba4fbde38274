"""A metric may have any name: also one that the SQL of the views has for something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framewalk.engine import Store, load_plan, read_entities, replay
from framewalk.engine.oal.binding import RESERVED_NAMES

BOOKINFO = Path(__file__).parent.parent.parent / "fixtures" / "captures" / "bookinfo"
CALLS = {
    "plain": "from(K8SService.*).count()",
    "struct": "from(K8SService.protocol.http.latency).percentile2(10)",
    "map_of_numbers": "from(K8SService.protocol.http.latency).histogram(100, 5)",
    "map_of_labels": "from(K8SService.*).labelCount(name)",
}
TAKEN = RESERVED_NAMES | {"service"}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every word in the SQL of the views and macros, whatever case it is in."""
    oal = tmp_path_factory.mktemp("words") / "few.oal"
    oal.write_text(definitions(CALLS), encoding="utf-8")
    with Store(":memory:", load_plan([oal])) as store:
        rows = store.query(
            "SELECT sql FROM duckdb_views() WHERE NOT internal UNION ALL "
            "SELECT macro_definition FROM duckdb_functions() WHERE NOT internal"
        ).fetchall()
    found = {word.casefold() for (sql,) in rows for word in re.findall(r"[^\W\d]\w*", sql)}
    return sorted(found - TAKEN - CALLS.keys())


def definitions(calls: dict[str, str]) -> str:
    return "".join(f"{name} = {call};\n" for name, call in calls.items())


# Not labels: DuckDB takes minutes to plan a hundred of them.
@pytest.mark.parametrize("kind", ["plain", "struct", "map_of_numbers"])
def test_any_word_of_the_views_can_be_a_name(words: list[str], kind: str, tmp_path: Path) -> None:
    assert {"resolution", "metric", "lambda", "key"} < set(words)
    oal = tmp_path / "named.oal"
    oal.write_text(definitions(dict.fromkeys(words, CALLS[kind]) | CALLS), encoding="utf-8")
    with Store(":memory:", load_plan([oal])) as store:
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store)
        rows = store.query("FROM metric_values").fetchall()
    values: dict[str, set[tuple[object, ...]]] = {}
    for bucket, resolution, _, entity_id, _, metric, label, value in rows:
        values.setdefault(metric, set()).add((bucket, resolution, entity_id, label, value))
    assert values.keys() == {*words, *CALLS}
    assert [word for word in words if values[word] != values[kind]] == []
