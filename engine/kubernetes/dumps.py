"""Kubernetes dumps: sightings out of `kubectl get pods,services,endpointslices,nodes -A -o yaml`.

What one output lists was seen at one moment. That moment is not written anywhere: it is known by
the cluster's resourceVersion, of which the largest in the output is the nearest, and is not before
the times that the objects show.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.documents import DUMP_AGAIN, Field, documents_of, read_text
from framewalk.engine.kubernetes.inventory import (
    OPEN_START_NS,
    Inventory,
    Pod,
    Seen,
    Service,
    Sighting,
    identities,
)
from framewalk.engine.kubernetes.objects import Read, is_known, kind_of, read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_DUMP_SUFFIXES: Final = (".yaml", ".yml", ".json")
_MOST_WARNINGS: Final = 20
_NAMED: Final = re.compile(r"(?P<cluster>[^=/\\]+)=(?P<path>.+)", re.DOTALL)
_NS_PER_S: Final = 10**9
_DELETED: Final = "DELETED"
_WATCHED: Final = ("ADDED", "MODIFIED", _DELETED)


class Source(NamedTuple):
    """A dump, and the `clusterName` of the nodes that it is for (empty: all that have no other)."""

    cluster: str
    path: Path

    def __str__(self) -> str:
        return f"{self.cluster}={self.path}" if self.cluster else str(self.path)


def source_of(text: str | Path | Source) -> Source:
    """Read `PATH` or `NAME=PATH`; what is there as it is written is a path."""
    if isinstance(text, Source):
        return text
    named = _NAMED.fullmatch(str(text))
    if named is None or Path(text).exists():
        return Source("", Path(text))
    return Source(named["cluster"].strip(), Path(named["path"].strip()))


@dataclass(frozen=True, slots=True)
class Dumps:
    """What dumps say of each cluster, and what in them is odd."""

    sightings: dict[str, list[Sighting[Any]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def inventories(self) -> dict[str, Inventory]:
        """What is known of each cluster, by its name; empty is that of nodes without another."""
        return {cluster: Inventory.of(seen) for cluster, seen in self.sightings.items()}


def read_dumps(sources: Iterable[str | Path | Source]) -> Dumps:
    """Read all `sources`: files, or folders (of folders) of *.yaml, *.yml and *.json.

    A file is YAML (one or more documents) or JSON (one or more values), and holds Lists or single
    objects; objects of other kinds are passed over, and so are files of a folder that hold none at
    all. An object that is odd costs itself, and a warning. No source at all gives nothing.

    Raises EntitiesError where a file is missing, unreadable or damaged, and where a file that was
    named, or all files of a folder together, hold no object that can be used.
    """
    warnings = _Warnings()
    by_file: dict[str, dict[Path, list[Sighting[Any]]]] = {}
    for source in map(source_of, sources):
        files = by_file.setdefault(source.cluster, {})
        for path, sightings in _read(source.path, warnings):
            files.setdefault(path, []).extend(sightings)
    for files in by_file.values():
        for problem in _claimed_twice(files):
            warnings.add(problem)
    by_cluster = {
        cluster: [one for seen in files.values() for one in seen]
        for cluster, files in by_file.items()
    }
    return Dumps(by_cluster, tuple(warnings.lines()))


class _Warnings:
    """Lines for a person, a bounded number."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0

    def add(self, line: str) -> None:
        if len(self._lines) < _MOST_WARNINGS:
            self._lines.append(line)
        else:
            self._more += 1

    def lines(self) -> list[str]:
        more = [f"{self._more:,} more problems with Kubernetes objects"] if self._more else []
        return self._lines + more


def _read(path: Path, warnings: _Warnings) -> list[tuple[Path, list[Sighting[Any]]]]:
    others: dict[str, None] = {}
    found: list[tuple[Path, list[Sighting[Any]]]] = []
    odd: list[EntitiesError] = []
    try:
        is_folder = path.is_dir()
        for file in files_of_folder(path) if is_folder else [path]:
            reading = _FileReading(file, is_of_folder=is_folder)
            sightings = reading.sightings()
            found += [(file, sightings)] if sightings else []
            others |= dict.fromkeys(reading.others)
            odd += reading.odd
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        place = error.filename or path
        raise EntitiesError(place, reason, "check the path and its permissions") from error
    if not found:
        if odd:
            raise odd[0]
        problem = "neither a Pod nor a Service in it"
        only = ", ".join(sorted(others))
        raise EntitiesError(path, problem + (f", only {only}" if only else ""), DUMP_AGAIN)
    for each in odd:
        warnings.add(f"{each}; this object is left out")
    return found


def files_of_folder(folder: Path) -> list[Path]:
    """Return the dumps below a folder; names that begin with a dot are not looked into.

    Raises EntitiesError where there is none, OSError where a folder cannot be read.
    """
    files = sorted(_dumps_below(folder))
    if not files:
        problem = "no *.yaml, *.yml or *.json file in this folder"
        raise EntitiesError(folder, problem, DUMP_AGAIN)
    return files


def _dumps_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*names, *folders]:
            if Path(name).suffix.lower() in _DUMP_SUFFIXES and not name.startswith("."):
                if name in folders:
                    folders.remove(name)
                yield Path(where, name)


class _FileReading:
    """Reads one file; `others` are kinds that were passed over, `odd` are objects that were."""

    def __init__(self, file: Path, *, is_of_folder: bool) -> None:
        self._file = file
        self._is_of_folder = is_of_folder
        self.others: list[str] = []
        self.odd: list[EntitiesError] = []

    def sightings(self) -> list[Sighting[Any]]:
        """Return what the file shows."""
        made: list[Sighting[Any]] = []
        alone: list[Read] = []
        names: set[tuple[type, str, str]] = set()
        for root in self._documents():
            if self._is_list(root):
                made += _seen_at_once(root["metadata"], self._objects(root))
            elif root["type"].value in _WATCHED and root["object"].value is not None:
                made += self._watched(root)
            else:
                for one in self._object(root, ""):
                    name = (type(one.thing), one.thing.namespace, one.thing.name)
                    # Seen again: what came before was seen before.
                    if name in names:
                        made += _seen_at_once(None, alone)
                        alone, names = [], set()
                    alone.append(one)
                    names.add(name)
        return made + _seen_at_once(None, alone)

    def _documents(self) -> Iterator[Field]:
        documents: list[object] = []
        for one in self._parsed():
            # An array of objects is as good as a stream of them.
            documents += one if isinstance(one, list) else [] if one is None else [one]
        for number, document in enumerate(documents, 1):
            inside = f"document {number}" if len(documents) > 1 else ""
            root = Field(self._file, inside, "", document)
            if not self._is_of_folder and len(documents) == 1:
                root.mapping()
            if isinstance(document, dict):
                yield root
            else:
                self._refused(root)

    def _parsed(self) -> list[object]:
        try:
            text = read_text(self._file)
            return documents_of(self._file, text)
        except EntitiesError as error:
            if not self._is_of_folder or _may_be_dump(self._file):
                raise
            self.odd.append(error)
            return []

    def _refused(self, root: Field) -> None:
        try:
            root.mapping()
        except EntitiesError as error:
            if not self._is_of_folder:
                self.odd.append(error)

    def _is_list(self, root: Field) -> bool:
        try:
            return kind_of(root).partition(" ")[0].endswith("List")
        except EntitiesError:
            if not self._is_of_folder:
                raise
            return False

    def _objects(self, root: Field) -> list[Read]:
        kind, space, version = kind_of(root).partition(" ")
        own_kind = f"{kind.removesuffix('List')}{space}{version}"
        found: list[Read] = []
        for item in root["items"].elements():
            found += self._object(item.at(f"{root.inside} {item.name}".strip()), own_kind)
        return found

    def _watched(self, event: Field) -> list[Sighting[Any]]:
        """Read an event as `kubectl get --watch --output-watch-events` prints it."""
        root = event["object"].at(event.inside)
        is_gone = event["type"].value == _DELETED
        return [
            Sighting(
                Seen(one.version, _gone_ns(root, one) if is_gone else one.latest_ns),
                one.thing,
                one.version,
                is_gone,
            )
            for one in self._object(root, "")
        ]

    def _object(self, root: Field, default_kind: str) -> list[Read]:
        try:
            kind = kind_of(root) or default_kind
            if not is_known(kind):
                self.others.append(kind or "objects without a kind")
                return []
            return [read_object(kind, _named(root, kind))]
        except EntitiesError as error:
            self.odd.append(error)
            return []


def _gone_ns(root: Field, one: Read) -> int:
    """Return when something was deleted, OPEN_START_NS where it does not say so.

    It may go until its deletionTimestamp; what it shows of the time in which it was to is nearer.
    """
    metadata = root["metadata"]
    until_ns = metadata["deletionTimestamp"].plausible_ns()
    if until_ns is None:
        return OPEN_START_NS
    asked_ns = until_ns - metadata["deletionGracePeriodSeconds"].number() * _NS_PER_S
    return one.latest_ns if asked_ns <= one.latest_ns <= until_ns else until_ns


def _may_be_dump(file: Path) -> bool:
    """Tell whether a file that cannot be read was meant to be one of Kubernetes objects."""
    content = file.read_bytes()
    return b"kind" in content and (b"Pod" in content or b"Service" in content)


def _named(root: Field, kind: str) -> Field:
    """Add kind, namespace and name to the place of an object, as far as it has them."""
    metadata = root["metadata"].value
    names = metadata if isinstance(metadata, dict) else {}
    word = kind.partition(" ")[0]
    name = f"{names.get('namespace') or 'default'}/{names['name']}" if names.get("name") else ""
    return root.at(" ".join(f"{root.inside} {word} {name}".split()))


def _seen_at_once(metadata: Field | None, found: list[Read]) -> list[Sighting[Any]]:
    """Return sightings of objects that one output lists."""
    version = -1 if metadata is None else metadata["resourceVersion"].number(-1)
    version = max([version, *(one.version for one in found)])
    seen = Seen(version, _not_before(found))
    return [Sighting(seen, one.thing, one.version) for one in found]


def _not_before(found: list[Read]) -> int:
    """Return a time that is not after the moment of an output, whatever one odd object says."""
    latest = sorted(one.latest_ns for one in found)
    return latest[-2] if len(latest) > 1 else latest[0] if latest else OPEN_START_NS


# Dumps of several clusters that are given as if they were of one.

_Claims = dict[tuple[type, str], str]


def _claimed_twice(files: Mapping[Path, list[Sighting[Any]]]) -> Iterator[str]:
    """Say which dumps claim an address for different objects, and have no object in common.

    Dumps of one cluster have: what lives on between two of them is in both.
    """
    known = {path: set(identities(seen)) for path, seen in files.items()}
    claims = {path: _claims(seen) for path, seen in files.items()}
    paths = list(files)
    owners: dict[tuple[type, str], Path] = {}
    judged: dict[Path, set[Path]] = {path: {path} for path in paths}
    for path in paths:
        for claim, name in claims[path].items():
            other = owners.setdefault(claim, path)
            if other in judged[path]:
                continue
            judged[path].add(other)
            if known[other] & known[path]:
                continue
            kind, ip = claim
            yield (
                f"{path}: {ip} is the {kind.__name__} {name} here and "
                f"{claims[other][claim]} in {other}, and no object is in both; if they are of two "
                "clusters, name those: --entities NAME=FILE"
            )


def _claims(seen: list[Sighting[Any]]) -> _Claims:
    claims: _Claims = {}
    for thing in (one.thing for one in seen):
        if isinstance(thing, Service) or (isinstance(thing, Pod) and not thing.host_network):
            for ip in thing.ip_addresses:
                claims.setdefault((type(thing), ip), f"{thing.namespace}/{thing.name}")
    return claims
