"""Configuration files as text: read, substituted and located, not yet interpreted.

A file has modules, each with a `selector` and provider blocks of keys and values. Every value
keeps its place and the environment variables that made it, so that whatever is wrong with it can be
told. What the values mean is in `server/config/model.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import yaml

from framewalk.engine.errors import InputError
from framewalk.server.config.oap import has_key, has_provider

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

DEFAULT_FILE: Final = Path(__file__).parent / "default.yml"
OFF: Final = "-"
SELECTOR: Final = "selector"

# Module, provider, keys.
Vocabulary = dict[str, dict[str, tuple[str, ...]]]

_OPEN: Final = "${"
_CLOSE: Final = "}"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML takes a lone dash for the start of a list.
_BARE_OFF: Final = re.compile(r"^([ \t]+selector:[ \t]+)-(?=[ \t\r]*(?:#.*)?$)", re.MULTILINE)
_QUOTES: Final = ('"', "'")
_NULL: Final = "tag:yaml.org,2002:null"
_LONGEST_GOT: Final = 200
_SHORTEST_QUOTED: Final = 2
_FORM: Final = "${NAME:default}"


class Problem(NamedTuple):
    """One thing that is wrong; `str()` is its line. `line` counts from 1, 0 is the whole file."""

    path: str
    line: int
    message: str
    got: str = ""
    wanted: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        facts = [f"got {self.got}"] if self.got else []
        facts += [f"want {self.wanted}"] if self.wanted else []
        parts = [f"{place}: {self.message}", ", ".join(facts)]
        parts += [f"hint: {self.hint}"] if self.hint else []
        return "; ".join(filter(None, parts))


class ConfigError(InputError):
    """A configuration cannot be used; `problems` has everything that is wrong with it.

    `str()` is one line for each problem.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(problems)
        paths = ", ".join(dict.fromkeys(problem.path for problem in self.problems))
        super().__init__(paths, f"{len(self.problems)} problems", "mend the configuration")
        # What copying and pickling call the class with.
        self.args = (self.problems,)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@dataclass(frozen=True, slots=True)
class Value:
    """What a key is set to: text, or texts where the file has a list, after substitution.

    `path` and `line` (from 1) say where; `variables` are the environment variables in use.
    """

    text: str | tuple[str, ...] = field(repr=False)
    path: str
    line: int
    variables: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Where the value comes from, for a person."""
        if self.variables:
            return f"environment {', '.join(self.variables)}"
        return "default" if self.path == str(DEFAULT_FILE) else f"{self.path}:{self.line}"

    def problem(self, message: str, wanted: str = "", hint: str = "", shown: str = "") -> Problem:
        """Tell what is wrong with this value; `shown` takes the place of a secret."""
        got = shown or _shown(self.text)
        if self.variables:
            got = f"{got} from {', '.join(self.variables)}"
        return Problem(self.path, self.line, message, got, wanted, hint)


@dataclass(slots=True)
class Settings:
    """The values of files laid over each other, and what was wrong on the way.

    `selectors` are by module, `values` by module, provider and key. `warnings` are about what is
    left out: it is not framewalk's, and no mistake either.
    """

    selectors: dict[str, Value] = field(default_factory=dict)
    values: dict[tuple[str, str, str], Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def provider_values(self, module: str, provider: str) -> dict[str, Value]:
        """Return the values of a provider block by key."""
        return {
            key: value
            for (own_module, own_provider, key), value in self.values.items()
            if (own_module, own_provider) == (module, provider)
        }


def read_settings(
    path: Path | None, environment: Mapping[str, str], vocabulary: Vocabulary
) -> Settings:
    """Read the default file and lay the file at `path` over it, if there is one.

    Raises:
        ConfigError: a file cannot be read at all. Everything else is in `problems`.
    """
    settings = Settings()
    for one in filter(None, (DEFAULT_FILE, path)):
        _FileReader(str(one), environment, vocabulary, settings).read(_compose(one))
    return settings


def suggestion(name: str, known: Collection[str]) -> str:
    """Return a hint that names what `name` may have meant, or all there is."""
    by_folded = {one.casefold(): one for one in known}
    near = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{by_folded[near[0]]}'?"
    return f"there is {', '.join(known)}" if known else "remove it"


class _Entry(NamedTuple):
    name: str
    line: int
    node: yaml.Node


@dataclass(frozen=True, slots=True)
class _FileReader:
    path: str
    environment: Mapping[str, str]
    vocabulary: Vocabulary
    settings: Settings

    def read(self, root: yaml.Node | None) -> None:
        modules = list(self._entries(root, "the file", "modules such as receiver-ebpf"))
        is_known = any(module.name in self.vocabulary for module in modules)
        for module in modules:
            providers = self.vocabulary.get(module.name)
            if providers is None and is_known:
                self._warn(module, f"module '{module.name}'", self.vocabulary)
            elif providers is None:
                hint = suggestion(module.name, self.vocabulary)
                self._report(module.line, f"unknown module '{module.name}'", hint=hint)
            else:
                self._read_module(module, providers)

    def _read_module(self, module: _Entry, providers: Mapping[str, tuple[str, ...]]) -> None:
        wanted = f"a selector and {' or '.join(providers)}"
        for entry in self._entries(module.node, module.name, wanted):
            if entry.name == SELECTOR:
                self._read_selector(module.name, entry, providers)
            elif entry.name in providers:
                self._read_provider(module.name, entry, providers[entry.name])
            elif has_provider(module.name, entry.name):
                self._warn(entry, f"provider '{entry.name}' in {module.name}")
            else:
                message = f"unknown provider '{entry.name}' in {module.name}"
                hint = suggestion(entry.name, [SELECTOR, *providers])
                self._report(entry.line, message, hint=hint)

    def _read_selector(self, module: str, entry: _Entry, providers: Collection[str]) -> None:
        value = self._value(entry, f"{module}.{SELECTOR}")
        if value is None:
            return
        chosen = str(value.text)
        if chosen in providers or not has_provider(module, chosen):
            self.settings.selectors[module] = value
            return
        used = self.settings.selectors[module].text
        self.settings.warnings.append(
            value.problem(f"{module}.{SELECTOR} names a provider of an OAP; {used} is used")
        )

    def _read_provider(self, module: str, provider: _Entry, keys: tuple[str, ...]) -> None:
        name = f"{module}.{provider.name}"
        wanted = f"keys such as {keys[0]}" if keys else "nothing"
        for entry in self._entries(provider.node, name, wanted):
            if has_key(module, provider.name, entry.name) and entry.name not in keys:
                self._warn(entry, f"key '{entry.name}' in {name}")
                continue
            if entry.name not in keys:
                message = f"unknown key '{entry.name}' in {name}"
                self._report(entry.line, message, hint=suggestion(entry.name, keys))
                continue
            value = self._value(entry, f"{name}.{entry.name}")
            if value is not None:
                self.settings.values[module, provider.name, entry.name] = value

    def _entries(self, node: yaml.Node | None, name: str, wanted: str) -> Iterator[_Entry]:
        """Yield the entries of a mapping once each; nothing at all is an empty one."""
        if node is None or node.tag == _NULL:
            return
        if not isinstance(node, yaml.MappingNode):
            self._report(_line(node), f"{name} is not a mapping", _node_shown(node), wanted)
            return
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(_line(key), f"a key in {name} is not a text", _node_shown(key), wanted)
            elif key.value in lines:
                message = f"'{key.value}' in {name} is also in line {lines[key.value]}"
                self._report(_line(key), message, hint="remove one of them")
            else:
                lines[key.value] = _line(key)
                yield _Entry(key.value, _line(key), value)

    def _value(self, entry: _Entry, name: str) -> Value | None:
        items = entry.node.value if isinstance(entry.node, yaml.SequenceNode) else [entry.node]
        texts: list[str] = []
        variables: list[str] = []
        for item in items:
            if not isinstance(item, yaml.ScalarNode):
                self._report(_line(item), f"{name} is not a value", _node_shown(item), "a value")
                return None
            try:
                texts.append(substitute(_text(item), self.environment, variables))
            except ValueError as error:
                # The text itself may be a secret.
                self._report(_line(item), f"{name}: {error}", wanted=_FORM)
                return None
        single = isinstance(entry.node, yaml.ScalarNode)
        text = texts[0] if single else tuple(texts)
        return Value(text, self.path, entry.line, tuple(dict.fromkeys(variables)))

    def _warn(self, entry: _Entry, what: str, known: Collection[str] = ()) -> None:
        """Tell that something is left out; of all `known` names only one that is near is told."""
        near = suggestion(entry.name, known)
        hint = near if near.startswith("did") else ""
        message = f"framewalk has no {what}: it is left out"
        self.settings.warnings.append(Problem(self.path, entry.line, message, hint=hint))

    def _report(
        self, line: int, message: str, got: str = "", wanted: str = "", hint: str = ""
    ) -> None:
        self.settings.problems.append(Problem(self.path, line, message, got, wanted, hint))


def substitute(text: str, environment: Mapping[str, str], used: list[str]) -> str:
    """Replace each `${NAME:default}` of `text`; what comes in is not looked at again.

    A default may be empty or in quotes. The variables that were found are added to `used`.

    Raises:
        ValueError: with what is wrong with one of them, in a few words.
    """
    done = []
    before, opened, rest = text.partition(_OPEN)
    while opened:
        inside, closed, after = rest.partition(_CLOSE)
        if not closed:
            message = "'${' without '}'"
            raise ValueError(message)
        done += [before, _resolve(inside, environment, used)]
        before, opened, rest = after.partition(_OPEN)
    return "".join([*done, before])


def _resolve(inside: str, environment: Mapping[str, str], used: list[str]) -> str:
    name, has_default, default = inside.partition(":")
    if _OPEN in inside:
        message = "'${' inside of '${'"
        raise ValueError(message)
    if not _VARIABLE.fullmatch(name):
        message = f"'{name}' is not the name of a variable" if name else "'${' without a name"
        raise ValueError(message)
    if name in environment:
        used.append(name)
        return environment[name]
    if not has_default:
        message = f"the environment has no {name}, and there is no default"
        raise ValueError(message)
    return _unquoted(default)


def _unquoted(text: str) -> str:
    quoted = len(text) >= _SHORTEST_QUOTED and text[0] in _QUOTES and text[0] == text[-1]
    return text[1:-1] if quoted else text


def _compose(path: Path) -> yaml.Node | None:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        root: yaml.Node | None = yaml.compose(_BARE_OFF.sub(r'\1"-"', text), Loader=yaml.SafeLoader)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _unreadable(path, 0, reason, "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, 0, "this is not UTF-8 text", "save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        hint = "check the indentation, and put values with ': ' or ' #' in quotes"
        raise _unreadable(path, line, f"no YAML: {error.problem}", hint) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise _unreadable(path, 0, f"no YAML: {problem}", "save it as plain text") from error
    return root


def _unreadable(path: Path, line: int, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(str(path), line, message, hint=hint)])


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(node: yaml.ScalarNode) -> str:
    return "" if node.tag == _NULL else str(node.value)


def _node_shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return _shown(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _shown(text: str | tuple[str, ...]) -> str:
    if isinstance(text, tuple):
        return "a list"
    short = text if len(text) <= _LONGEST_GOT else f"{text[:_LONGEST_GOT]}…"
    return repr(short) if short else "nothing"
