"""The places of a text of SQL that are to be filled: `$since`, `$service`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NAMES = frozenset({duckdb.token_type.identifier, duckdb.token_type.keyword})


class _Place(NamedTuple):
    """A place from one byte to before another."""

    first: int
    end: int
    name: str


def places_of(text: str) -> tuple[str, ...]:
    """Return the names of the places in SQL, each once, in their order; what is quoted has none."""
    return tuple(dict.fromkeys(place.name for place in _places(_content(text))))


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return SQL with each place replaced by SQL; raises KeyError for a place without a value."""
    content, done = _content(text), 0
    parts: list[bytes] = []
    for place in _places(content):
        parts += [content[done : place.first], values[place.name].encode()]
        done = place.end
    return b"".join([*parts, content[done:]]).decode()


def _content(text: str) -> bytes:
    # What is not Unicode in an argument of a command is no SQL either.
    return text.encode(errors="replace")


def _places(content: bytes) -> Iterator[_Place]:
    tokens = [*duckdb.tokenize(content.decode()), (len(content), duckdb.token_type.comment)]
    for at in range(len(tokens) - 2):
        (first, kind), (begin, named), (end, _) = tokens[at : at + 3]
        if kind == duckdb.token_type.operator and named in _NAMES:
            word = content[begin:end].split()
            if content[first:begin].endswith(b"$") and word:
                yield _Place(begin - 1, begin + len(word[0]), word[0].decode())
