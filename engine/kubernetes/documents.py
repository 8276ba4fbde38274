"""Texts of Kubernetes objects as people have them: JSON and YAML, one after the other.

YAML may be several documents. JSON may be one value, an array, or many values one after the other
(a stream, or a line each).
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.spelling import canonical_ip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DUMP_AGAIN: Final = (
    "give the output of 'kubectl get pods,services,endpointslices,nodes -A -o yaml' (or json)"
)
_APART: Final = "put a line of '---' between two outputs, or give each in a file of its own"
_BLANK: Final = re.compile(r"[\s,\x1e]*")


def read_text(path: Path) -> str:
    """Read a file; raises EntitiesError where it is no text, OSError where it is not to be had."""
    content = path.read_bytes()
    # PowerShell's `kubectl ... > dump.yaml` writes UTF-16.
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not a text file (byte {error.start:,} cannot be decoded)"
        raise EntitiesError(path, problem, DUMP_AGAIN) from error
    if not text.strip():
        raise EntitiesError(path, "the file is empty", DUMP_AGAIN)
    return text


def documents_of(path: Path, text: str) -> list[object]:
    """Parse JSON if it looks like it and is, else YAML; numbers and times stay text.

    Raises EntitiesError where it is neither, and where a key is given twice.
    """
    try:
        if text.lstrip()[:1] in ("{", "["):
            with contextlib.suppress(json.JSONDecodeError):
                return _json_values(text)
        return list(_YamlDocuments(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        if isinstance(error, _KeyTwiceError):
            raise EntitiesError(place, str(error.problem), _APART) from error
        problem = f"neither YAML nor JSON: {error.problem}"
        raise EntitiesError(place, problem, DUMP_AGAIN) from error
    except yaml.YAMLError as error:
        problem = f"neither YAML nor JSON: {str(error).splitlines()[0]}"
        raise EntitiesError(path, problem, DUMP_AGAIN) from error
    except RecursionError as error:
        raise EntitiesError(path, "nested too deeply", DUMP_AGAIN) from error


def _json_values(text: str) -> list[object]:
    decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
    values = []
    at = _past_blanks(text, 0)
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at = _past_blanks(text, at)
    return values


def _past_blanks(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


# YAML: most of a dump (containers, volumes, managed fields) says nothing about addresses, and to
# build it costs ten times as much as to parse it. So it is passed over on the way.

KEPT_COLLECTIONS: Final = frozenset(
    {
        *("items", "metadata", "labels", "ownerReferences", "spec", "selector", "status", "object"),
        *("clusterIPs", "externalIPs", "loadBalancer", "ingress", "ports", "podIPs", "hostIPs"),
        *("containers", "initContainers", "conditions", "addresses", "podCIDRs", "endpoints"),
        *("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"),
        *("state", "lastState", "running", "terminated"),
    }
)
_PLAIN_SCALARS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _YamlDocuments:
    """Iterates over the documents of a YAML text, built of dict, list, str, bool and None.

    Numbers and times stay text. A collection under a key that is not read comes out empty.
    """

    def __init__(self, text: str) -> None:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[Any] = yaml.parse(text, Loader=loader)
        self._anchors: dict[str, object] = {}

    def __iter__(self) -> Iterator[object]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                yield self._value(next(self._events))

    def _value(self, event: Any, *, kept: bool = True) -> object:  # noqa: ANN401
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        value: object
        if isinstance(event, yaml.ScalarEvent):
            value = event.value
            if event.implicit[0]:
                value = _PLAIN_SCALARS.get(value, value)
        elif not (kept or event.anchor):
            return self._pass_over(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence()
        else:
            value = self._mapping()
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _sequence(self) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event))
        return values

    def _mapping(self) -> dict[object, object]:
        values: dict[object, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event)
            if isinstance(key, list | dict):
                problem = "a collection cannot be a key"
                raise _YamlError(problem, event)
            if key in values:
                raise _KeyTwiceError(key, event)
            values[key] = self._value(next(self._events), kept=key in KEPT_COLLECTIONS)
        return values

    def _alias(self, event: yaml.AliasEvent) -> object:
        if event.anchor not in self._anchors:
            problem = f"unknown alias *{event.anchor}"
            raise _YamlError(problem, event)
        return self._anchors[event.anchor]

    def _pass_over(self, start: yaml.CollectionStartEvent) -> object:
        depth = 1
        while depth:
            event = next(self._events)
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif not isinstance(event, yaml.AliasEvent) and event.anchor:
                self._value(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
        return [] if isinstance(start, yaml.SequenceStartEvent) else {}


class _YamlError(yaml.MarkedYAMLError):
    def __init__(self, problem: str, event: Any) -> None:  # noqa: ANN401
        super().__init__(problem=problem, problem_mark=event.start_mark)


class _KeyTwiceError(_YamlError):
    """Two outputs one after the other are one document with every key twice."""

    def __init__(self, key: object, event: Any) -> None:  # noqa: ANN401
        super().__init__(f"the key {key} is given twice in one document", event)


# Values in a document, with the place at which they lie, and what they have to be.

_DUMP_UNCHANGED: Final = "give the dump as kubectl wrote it, or correct this field"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT64: Final = range(-(2**63), 2**63)
_NUMBER: Final = re.compile(r"[0-9]{1,30}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SHOWN_CHARACTERS: Final = 40


# Not frozen: a watch makes thirty of them for each event.
@dataclass(slots=True)
class Field:
    """A value in a dump and where it lies: `inside` is the object, `name` the path in it.

    All readers raise EntitiesError where the value is of another type.
    """

    file: Path
    inside: str
    name: str
    value: object

    def __getitem__(self, key: str) -> Field:
        value = self.value
        found = value.get(key) if isinstance(value, dict) else self.mapping().get(key)
        return Field(self.file, self.inside, f"{self.name}.{key}" if self.name else key, found)

    def child(self, name: str, value: object) -> Field:
        """Return another value of the same object."""
        return Field(self.file, self.inside, name, value)

    def at(self, inside: str) -> Field:
        """Return the same value, as that of another object."""
        return replace(self, inside=inside, name="")

    def mapping(self) -> Mapping[object, object]:
        """Return a mapping, an empty one for nothing."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.fail("a mapping")
        return self.value

    def elements(self) -> list[Field]:
        """Return the elements of a list, none for nothing."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.fail("a list")
        return [self.child(f"{self.name}[{n}]", value) for n, value in enumerate(self.value)]

    def text(self) -> str:
        """Return text, the empty one for nothing."""
        if self.value is None:
            return ""
        if not isinstance(self.value, str) or _SURROGATE.search(self.value):
            self.fail("text")
        return self.value

    def texts(self) -> dict[str, str]:
        """Return a mapping of texts."""
        mapping = self.mapping()
        keys = [key for key in mapping if isinstance(key, str)]
        if len(keys) < len(mapping):
            self.fail("a mapping with text for every key")
        return {key: self[key].text() for key in keys}

    def flag(self) -> bool:
        """Return whether it is true."""
        if not isinstance(self.value, bool | None):
            self.fail("true or false")
        return bool(self.value)

    def number(self, default: int = 0) -> int:
        """Return a number that is not negative; the default for what is none."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return max(self.value, default)
        if isinstance(self.value, str) and _NUMBER.fullmatch(self.value):
            return int(self.value)
        return default

    def time_ns(self) -> int | None:
        """Return a time in ns since 1970, None for nothing."""
        text = self.text()
        if not text:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self.fail("a timestamp")
        zoned = time if time.tzinfo else time.replace(tzinfo=UTC)
        time_ns = (zoned - _EPOCH) // timedelta(microseconds=1) * 1000
        if time_ns not in _INT64:
            self.fail("a time from 1678 to 2261")
        return time_ns

    def plausible_ns(self) -> int | None:
        """Return a time; None also for what is none, and for the zero times of runtimes."""
        try:
            time_ns = self.time_ns()
        except EntitiesError:
            return None
        return time_ns if time_ns is not None and time_ns > 0 else None

    def ip_address(self) -> str | None:
        """Return the address; None also for the words that stand for none."""
        text = self.text()
        if text in ("", "None"):
            return None
        try:
            return canonical_ip(text)
        except ValueError:
            self.fail("an IP address")

    def fail(self, expected: str) -> NoReturn:
        """Say that this is something else."""
        self.refuse(f"{self.name or 'this'} is {_describe(self.value)}, not {expected}")

    def refuse(self, problem: str) -> NoReturn:
        """Say what is wrong, and where."""
        place = f"{self.file}: {self.inside}" if self.inside else self.file
        raise EntitiesError(place, problem, _DUMP_UNCHANGED)


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
