"""Kubernetes dumps: Pods and Services out of `kubectl get pods,services -A -o yaml` (or json).

This is the raw material of the entity table (analysis.md section 2, `addresses.py`): what the
dumps say about each object, merged over all dumps, without any rule about addresses.

How several sightings of an object become one: `inventory.py`.
"""

from __future__ import annotations

import codecs
import contextlib
import ipaddress
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.inventory import Inventory, Pod, Service, Sighting, merge_sightings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_DUMP_SUFFIXES: Final = (".yaml", ".yml", ".json")
_DUMP_AGAIN: Final = "give the output of 'kubectl get pods,services -A -o yaml' (or json)"
_DUMP_UNCHANGED: Final = "give the dump as kubectl wrote it, or correct this field"
_KINDS: Final = ("Pod", "Service")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INT64: Final = range(-(2**63), 2**63)
_NUMBER: Final = re.compile(r"[0-9]{1,30}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SHOWN_CHARACTERS: Final = 40
_EARLIER: Final = -(2**62)


def read_dump(paths: Iterable[str | Path], *earlier: Inventory) -> Inventory:
    """Read the Pods and Services of all `paths`: files, or folders of *.yaml, *.yml and *.json.

    What `earlier` inventories say of an object is older than all dumps, and the first is oldest.

    A file is YAML (one or more documents) or JSON, and holds Lists or single objects; objects
    of other kinds are passed over. No path at all gives an empty inventory.

    Raises EntitiesError where a file is missing, unreadable or damaged, where a field has the
    wrong type, and where a file that was named, or all files of a folder together, hold neither
    a Pod nor a Service.
    """
    pods: list[Sighting[Pod]] = []
    services: list[Sighting[Service]] = []
    for version, inventory in enumerate(earlier, _EARLIER):
        pods += [Sighting(version, pod) for pod in inventory.pods]
        services += [Sighting(version, service) for service in inventory.services]
    for path in map(Path, paths):
        for kind, root in _pods_and_services(path):
            if kind == "Pod":
                pods.append(Sighting(_resource_version(root), _pod(root)))
            else:
                services.append(Sighting(_resource_version(root), _service(root)))
    return merge_sightings(pods, services)


def canonical_ip(text: str) -> str:
    """Write an IP address in its canonical form, an IPv4 address mapped into IPv6 as IPv4.

    Raises ValueError where `text` is not an IP address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _pods_and_services(path: Path) -> list[tuple[str, _Field]]:
    try:
        files = _files_of_folder(path) if path.is_dir() else [path]
        objects = [one for file in files for one in _objects(file)]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        place = error.filename or path
        raise EntitiesError(place, reason, "check the path and its permissions") from error
    found = [(kind, root) for kind, root in objects if kind in _KINDS]
    if not found:
        others = ", ".join(sorted({kind or "objects without a kind" for kind, _ in objects}))
        problem = "neither a Pod nor a Service in it" + (f", only {others}" if others else "")
        raise EntitiesError(path, problem, _DUMP_AGAIN)
    return found


def _files_of_folder(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _DUMP_SUFFIXES)
    if not files:
        problem = "no *.yaml, *.yml or *.json file in this folder"
        raise EntitiesError(folder, problem, _DUMP_AGAIN)
    return files


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    # PowerShell's `kubectl ... > dump.yaml` writes UTF-16.
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not a text file (byte {error.start:,} cannot be decoded)"
        raise EntitiesError(path, problem, _DUMP_AGAIN) from error
    if not text.strip():
        raise EntitiesError(path, "the file is empty", _DUMP_AGAIN)
    return text


def _documents(path: Path, text: str) -> list[object]:
    """Parse JSON if it looks like it and is, else YAML."""
    try:
        if text.lstrip().startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                return [json.loads(text, parse_int=str, parse_float=str, parse_constant=str)]
        return list(_YamlDocuments(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = f"neither YAML nor JSON: {error.problem}"
        raise EntitiesError(place, problem, _DUMP_AGAIN) from error
    except yaml.YAMLError as error:
        problem = f"neither YAML nor JSON: {str(error).splitlines()[0]}"
        raise EntitiesError(path, problem, _DUMP_AGAIN) from error
    except RecursionError as error:
        raise EntitiesError(path, "nested too deeply", _DUMP_AGAIN) from error


# YAML: most of a dump (containers, volumes, managed fields) says nothing about addresses, and to
# build it costs ten times as much as to parse it. So it is passed over on the way.

_KEPT_COLLECTIONS: Final = frozenset(
    {
        *("items", "metadata", "labels", "spec", "selector", "clusterIPs", "status", "podIPs"),
        *("loadBalancer", "ingress", "containerStatuses", "initContainerStatuses"),
        *("state", "terminated"),
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
            values[key] = self._value(next(self._events), kept=key in _KEPT_COLLECTIONS)
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


@dataclass(frozen=True, slots=True)
class _Field:
    """A value in a dump and where it lies: `inside` is the object, `name` the path in it."""

    file: Path
    inside: str
    name: str
    value: object

    def __getitem__(self, key: str) -> _Field:
        return self.child(f"{self.name}.{key}".lstrip("."), self.mapping().get(key))

    def child(self, name: str, value: object) -> _Field:
        return _Field(self.file, self.inside, name, value)

    def mapping(self) -> Mapping[object, object]:
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.fail("a mapping")
        return self.value

    def elements(self) -> list[_Field]:
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.fail("a list")
        return [self.child(f"{self.name}[{n}]", value) for n, value in enumerate(self.value)]

    def text(self) -> str:
        if self.value is None:
            return ""
        if not isinstance(self.value, str) or _SURROGATE.search(self.value):
            self.fail("text")
        return self.value

    def texts(self) -> dict[str, str]:
        keys = [key for key in self.mapping() if isinstance(key, str)]
        if len(keys) < len(self.mapping()):
            self.fail("a mapping with text for every key")
        return {key: self[key].text() for key in keys}

    def flag(self) -> bool:
        if not isinstance(self.value, bool | None):
            self.fail("true or false")
        return bool(self.value)

    def time_ns(self) -> int | None:
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
        self.refuse(f"{self.name or 'this'} is {_describe(self.value)}, not {expected}")

    def refuse(self, problem: str) -> NoReturn:
        place = f"{self.file}: {self.inside}" if self.inside else self.file
        raise EntitiesError(place, problem, _DUMP_UNCHANGED)


def _objects(path: Path) -> Iterator[tuple[str, _Field]]:
    """Yield the objects of a file with their kinds; a kind outside the core API has its group."""
    documents = [one for one in _documents(path, _read_text(path)) if one is not None]
    for number, document in enumerate(documents, 1):
        inside = f"document {number}" if len(documents) > 1 else ""
        root = _Field(path, inside, "", document)
        kind = _kind(root)
        if not kind.endswith("List"):
            yield kind, _named(root, kind)
            continue
        for item in root["items"].elements():
            item_root = _Field(path, f"{inside} {item.name}".strip(), "", item.value)
            item_kind = _kind(item_root) or kind.removesuffix("List")
            yield item_kind, _named(item_root, item_kind)


def _kind(root: _Field) -> str:
    kind, version = (" ".join(root[key].text().split()) for key in ("kind", "apiVersion"))
    return f"{kind} ({version})" if kind and version not in ("", "v1") else kind


def _named(root: _Field, kind: str) -> _Field:
    """Add kind, namespace and name to the place of an object, as far as it has them."""
    metadata = root["metadata"].value if kind in _KINDS else None
    names = metadata if isinstance(metadata, dict) else {}
    name = f"{names.get('namespace') or 'default'}/{names['name']}" if names.get("name") else ""
    return replace(root, inside=" ".join(f"{root.inside} {kind} {name}".split()))


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _pod(root: _Field) -> Pod:
    status = root["status"]
    addresses = [status["podIP"], *(address["ip"] for address in status["podIPs"].elements())]
    return Pod(
        namespace=root["metadata"]["namespace"].text() or "default",
        name=_name(root),
        uid=root["metadata"]["uid"].text(),
        labels=root["metadata"]["labels"].texts(),
        created_ns=root["metadata"]["creationTimestamp"].time_ns(),
        ended_ns=_ended_ns(root),
        ip_addresses=_distinct(addresses),
        host_network=root["spec"]["hostNetwork"].flag(),
    )


def _service(root: _Field) -> Service:
    spec = root["spec"]
    ingress = root["status"]["loadBalancer"]["ingress"].elements()
    cluster = [spec["clusterIP"], *spec["clusterIPs"].elements()]
    return Service(
        namespace=root["metadata"]["namespace"].text() or "default",
        name=_name(root),
        selector=spec["selector"].texts(),
        created_ns=root["metadata"]["creationTimestamp"].time_ns(),
        ip_addresses=_distinct([*cluster, *(point["ip"] for point in ingress)]),
        uid=root["metadata"]["uid"].text(),
    )


def _name(root: _Field) -> str:
    name = root["metadata"]["name"]
    if not name.text():
        name.refuse("metadata.name is missing")
    return name.text()


def _resource_version(root: _Field) -> int:
    text = root["metadata"]["resourceVersion"].text()
    return int(text) if _NUMBER.fullmatch(text) else -1


def _ended_ns(pod: _Field) -> int | None:
    """Return when the last container finished; without any such time, when it was deleted."""
    status = pod["status"]
    if status["phase"].text() not in ("Succeeded", "Failed"):
        return None
    lists = (status["initContainerStatuses"], status["containerStatuses"])
    states = [container["state"] for one in lists for container in one.elements()]
    ends_ns = [state["terminated"]["finishedAt"].time_ns() for state in states]
    known_ns = [time_ns for time_ns in ends_ns if time_ns is not None]
    return max(known_ns) if known_ns else pod["metadata"]["deletionTimestamp"].time_ns()


def _distinct(addresses: Iterable[_Field]) -> tuple[str, ...]:
    known = (address.ip_address() for address in addresses)
    return tuple(dict.fromkeys(ip for ip in known if ip is not None))


# Several sightings of one object
