"""Who asks again and again what the engine had to be ended for, and what else is refused for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
from sql_serving import OPTIONS, ask, serving

from framewalk.queries.reading import asked, secure
from framewalk.server.engine.queries import QueryWatch

PEER, OTHER = "127.0.0.1", "10.0.0.7"
REFUSED_S = 600


def ended_for(watch: QueryWatch, peer: str, *statements: str, now_s: float) -> None:
    watch.refuse([asked(statement, peer) for statement in statements], now_s)


def test_the_third_query_of_a_peer_is_a_sign_of_the_peer() -> None:
    watch = QueryWatch(2**30)
    ended_for(watch, PEER, "SELECT 1", now_s=0)
    ended_for(watch, OTHER, "SELECT 4", now_s=1)
    ended_for(watch, PEER, "SELECT 2", now_s=2)
    assert not {PEER, OTHER} & set(watch.refused_s(3))
    ended_for(watch, PEER, "SELECT 3", now_s=300)
    assert watch.refused_s(300)[PEER] == REFUSED_S
    assert OTHER not in watch.refused_s(300)
    assert PEER not in watch.refused_s(300 + REFUSED_S)


def test_three_in_more_than_ten_minutes_are_none() -> None:
    watch = QueryWatch(2**30)
    for number in range(5):
        ended_for(watch, PEER, f"SELECT {number}", now_s=number * 400)
        assert PEER not in watch.refused_s(number * 400)


def test_a_statement_and_a_peer_are_refused_in_words(tmp_path: Path) -> None:
    for refused, words in (
        (asked("SELECT 1 AS one", PEER).split()[0], "for this query"),
        (PEER, f"for several queries of {PEER}"),
        (OTHER, ""),
    ):
        with duckdb.connect(tmp_path / "some.duckdb") as connection:
            secure(connection)
            options = replace(OPTIONS, refused_s={refused: 120.0})
            with serving(connection, tmp_path / "some.duckdb", options) as server:
                answer = ask(server, "select  1 AS one")
        assert answer.status_code == (400 if words else 200)
        if words:
            assert words in answer.json()["problem"]
            assert "2 more minutes" in answer.json()["remedy"]
