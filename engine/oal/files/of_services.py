"""YAML files with a line for each service: a flat mapping of names to something."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from framewalk.engine.errors import InputError
from framewalk.engine.schemas import SERVICE_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator


def lines_of_services(path: str | Path, example: str) -> Iterator[tuple[str, yaml.Node, str]]:
    """Yield the name of each service as metrics have it, what it is given, and the line's place.

    Raises:
        InputError: the file cannot be read or holds something else; it names the line, and
            `example` says what to write.
    """
    lines: dict[str, int] = {}
    for name_node, value_node in _entries(Path(path), example):
        line = name_node.start_mark.line + 1
        place = _at(path, line)
        name = _name(name_node, place, example)
        if name in lines:
            problem = f"{name!r} is also in line {lines[name]}"
            raise InputError(place, problem, "give each service once")
        lines[name] = line
        yield name, value_node, place


def _entries(path: Path, example: str) -> list[tuple[yaml.Node, yaml.Node]]:
    try:
        document = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(path, reason, "check the path and its permissions") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise InputError(_at(path, line), f"no YAML: {error.problem}", example) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(path, f"no YAML: {problem}", example) from error
    if not isinstance(document, yaml.MappingNode):
        line = document.start_mark.line + 1 if document is not None else 1
        raise InputError(_at(path, line), "there is no mapping of services", example)
    return list(document.value)


def _at(path: str | Path, line: int) -> str:
    return f"{path}:{line}"


def _name(node: yaml.Node, place: str, example: str) -> str:
    """Return a service's name as metrics have it, which is cut."""
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(place, "the name of a service is a text", example)
    return str(node.value)[:SERVICE_LENGTH]
