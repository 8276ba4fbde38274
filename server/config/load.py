"""The configuration of the live receiver, from a YAML file and the environment.

`load_config` is the way in. A file is laid over the shipped default.yml (`config_file`), its
values become typed blocks (`config_model`), and what they say together is checked here. All
problems are told in one run, each with its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from framewalk.receiver.transports import GrpcServer, Tls
from framewalk.server.config.files import (
    OFF,
    SELECTOR,
    ConfigError,
    Problem,
    read_settings,
    suggestion,
)
from framewalk.server.config.model import (
    CORE,
    EBPF,
    MODULES,
    PROMQL,
    QUERY,
    SHARING_SERVER,
    SPOOL,
    Block,
    Config,
    Core,
    Ebpf,
    GrpcBlock,
    Listening,
    Spool,
)
from framewalk.server.config.value_types import choices, complaint, file_problem, is_secret, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from framewalk.server.config.files import Settings, Value

__all__ = [
    "Config",
    "ConfigError",
    "GrpcServer",
    "Setting",
    "Tls",
    "effective_settings",
    "load_config",
]

_HIDDEN: Final = "***"
_SEGMENTS_IN_BUDGET: Final = 2
_ANY_HOST: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
# The order in which the server to open is looked for, as in Config.grpc.
_SERVERS: Final = (EBPF, SHARING_SERVER, CORE)

_BlockT = TypeVar("_BlockT", bound=Block)


class Setting(NamedTuple):
    """A value in use, as it may be shown; of a selector, `provider` is empty."""

    module: str
    provider: str
    key: str
    text: str
    origin: str


def load_config(
    path: Path | None,
    environment: Mapping[str, str],
    on_warning: Callable[[Problem], None] | None = None,
) -> Config:
    """Read a configuration and check all of it.

    Args:
        path: a YAML file, laid over the shipped default file; None is the default file alone.
        environment: the variables that `${NAME:default}` finds.
        on_warning: is called for each thing in the file that is left out because it is not
            framewalk's: modules, and what an OAP has in those that framewalk has too.

    Raises:
        ConfigError: there are problems; it lists all of them.
    """
    parts = _read_parts(path, environment, on_warning)
    return Config.model_validate({MODULES[name].field: part.used for name, part in parts.items()})


def effective_settings(
    path: Path | None,
    environment: Mapping[str, str],
    on_warning: Callable[[Problem], None] | None = None,
) -> list[Setting]:
    """Return what load_config goes by, in the order of the default file; secrets are hidden.

    Raises:
        ConfigError: as load_config does.
    """
    parts = _read_parts(path, environment, on_warning)
    return [setting for part in parts.values() for setting in _show(part)]


@dataclass(frozen=True, slots=True)
class _Part:
    """What the files say about a module; `block` is None if it is off, or if a value is wrong."""

    name: str
    selector: Value
    provider: str | None
    values: Mapping[str, Value]
    block: Block | None

    @property
    def is_wrong(self) -> bool:
        return self.provider is not None and self.block is None

    @property
    def used(self) -> Block | None:
        """The block, if there is anything in it."""
        return self.block if self.block is not None and self.block.fields_by_key() else None

    def place(self, key: str) -> str:
        return f"{self.name}.{self.provider}.{key}"

    def problem(self, field: str, message: str, want: str = "", hint: str = "") -> Problem:
        """Tell what is wrong with the value of a field of the block."""
        key = self.block.key_of(field) if self.block is not None else field
        return self.values[key].problem(f"{self.place(key)} {message}", want, hint)


def _read_parts(
    path: Path | None,
    environment: Mapping[str, str],
    on_warning: Callable[[Problem], None] | None,
) -> dict[str, _Part]:
    vocabulary = {
        name: {provider: tuple(block.fields_by_key()) for provider, block in one.providers.items()}
        for name, one in MODULES.items()
    }
    settings = read_settings(path, environment, vocabulary)
    if on_warning is not None:
        for warning in settings.warnings:
            on_warning(warning)
    problems = list(settings.problems)
    parts = {name: _read_part(name, settings, problems) for name in MODULES}
    problems += _check_together(parts)
    if problems:
        raise ConfigError(sorted(problems, key=lambda one: (one.path != str(path), one.line)))
    return parts


def _read_part(name: str, settings: Settings, problems: list[Problem]) -> _Part:
    selector = settings.selectors[name]
    provider = _select(name, selector, problems)
    if provider is None:
        return _Part(name, selector, None, {}, None)
    values = settings.provider_values(name, provider)
    part = _Part(name, selector, provider, values, None)
    block = MODULES[name].providers[provider]
    try:
        made = block.model_validate({key: value.text for key, value in values.items()})
    except ValidationError as error:
        problems += _explain(part, block, error)
        return part
    return _Part(name, selector, provider, values, made)


def _select(name: str, selector: Value, problems: list[Problem]) -> str | None:
    module, chosen = MODULES[name], selector.text
    if isinstance(chosen, str) and chosen in module.providers:
        return chosen
    known = [*module.providers, *([] if module.required else [OFF])]
    if chosen != OFF:
        message, hint = f"{name}.{SELECTOR} names no provider", suggestion(str(chosen), known)
        problems.append(selector.problem(message, " or ".join(known), hint))
    elif module.required:
        problems.append(selector.problem(f"{name} cannot be turned off", " or ".join(known)))
    return None


def _explain(part: _Part, block: type[Block], error: ValidationError) -> Iterator[Problem]:
    fields = block.fields_by_key()
    for details in error.errors(include_url=False, include_input=False):
        key = str(details["loc"][0])
        value, field = part.values[key], fields[key]
        known = choices(field)
        yield value.problem(
            f"{part.place(key)} {complaint(details)}",
            wanted(field),
            suggestion(str(value.text), known) if known else "",
            _HIDDEN if is_secret(field) else "",
        )


def _show(part: _Part) -> Iterator[Setting]:
    selector = part.selector
    yield Setting(part.name, "", SELECTOR, str(selector.text), selector.origin)
    fields = part.block.fields_by_key() if part.block is not None else {}
    for key, field in fields.items():
        value = part.values[key]
        text = value.text if isinstance(value.text, str) else ",".join(value.text)
        shown = _HIDDEN if is_secret(field) and text else text
        yield Setting(part.name, str(part.provider), key, shown, value.origin)


def _check_together(parts: Mapping[str, _Part]) -> Iterator[Problem]:
    """Find what is wrong between values, where each of them is right alone."""
    opened = _opened(parts)
    if opened is not None:
        yield from _check_tls(opened, parts)
        yield from _check_message_size(opened, parts)
        yield from _check_not_opened(opened, parts)
    yield from _check_ports(opened, parts)
    yield from _check_budget(parts[SPOOL])
    yield from _check_ttl(parts[CORE])


def _opened(parts: Mapping[str, _Part]) -> _Part | None:
    """Return the module whose server is opened, as Config.grpc chooses; None if unknown."""
    servers = [parts[name] for name in _SERVERS]
    if any(part.is_wrong for part in servers):
        return None
    with_port = (one for one in servers if isinstance(one.block, GrpcBlock) and one.block.port)
    return next(with_port, None)


def _check_tls(opened: _Part, parts: Mapping[str, _Part]) -> Iterator[Problem]:
    server = _block(opened, GrpcBlock)
    if server is None or not server.tls_enabled:
        yield from _check_no_tls(opened, parts)
        return
    for field in ("tls_key_path", "tls_certificate_chain_path", "tls_trusted_ca_path"):
        path: Path | None = getattr(server, field)
        if path is not None and (problem := file_problem(path)):
            yield opened.problem(field, problem, "the path of a PEM file")
        elif path is None and field != "tls_trusted_ca_path":
            yield opened.problem(field, "is needed for TLS", "the path of a PEM file")


def _check_no_tls(opened: _Part, parts: Mapping[str, _Part]) -> Iterator[Problem]:
    """Find TLS settings that would seem to be in effect while the server speaks plain text."""
    for part in (parts[name] for name in _SERVERS):
        block = _block(part, GrpcBlock)
        if block is not None and block.tls_enabled:
            message = f"has no effect: {opened.name} is the server that is opened"
            yield part.problem("tls_enabled", message, hint=f"enable TLS in {opened.name} too")
        elif block is not None and part is opened and block.tls_trusted_ca_path is not None:
            message = "has no effect without TLS"
            yield part.problem("tls_trusted_ca_path", message, hint="set gRPCSslEnabled to true")


def _check_not_opened(opened: _Part, parts: Mapping[str, _Part]) -> Iterator[Problem]:
    """Find bounds of a server that is not opened, where the one that is opened has wider ones.

    The core is left out: an OAP's configuration has one, whatever else is opened.
    """
    used = _block(opened, GrpcBlock)
    for part in (parts[name] for name in _SERVERS if name != CORE):
        block = _block(part, GrpcBlock)
        if used is None or block is None or part is opened:
            continue
        bounds = {
            "host": block.host not in (*_ANY_HOST, used.host),
            "max_calls_per_connection": block.max_calls_per_connection > 0,
        }
        message = f"has no effect: {opened.name} is the server that is opened"
        hint = f"set it in {opened.name}, or set {part.name}'s {block.key_of('port')}"
        for field in (name for name, is_closer in bounds.items() if is_closer):
            yield part.problem(field, message, hint=hint)


def _check_message_size(opened: _Part, parts: Mapping[str, _Part]) -> Iterator[Problem]:
    ebpf, server = _block(parts[EBPF], Ebpf), _block(opened, GrpcBlock)
    core = _block(parts[CORE], Core)
    if ebpf is None or server is None or core is None:
        return
    largest = server.server(core.max_message_bytes).max_message_bytes
    if ebpf.max_bytes_in_flight < largest:
        want = f"at least {largest}, the size of a message"
        yield parts[EBPF].problem("max_bytes_in_flight", "is too small", want)


def _check_ports(opened: _Part | None, parts: Mapping[str, _Part]) -> Iterator[Problem]:
    names = ("sql", QUERY, PROMQL, "telemetry")
    listening = [part for part in (opened, *map(parts.get, names)) if part is not None]
    for part, other in combinations(listening, 2):
        one, two = _block(part, Listening), _block(other, Listening)
        if one is not None and two is not None and _clash(one, two):
            message = f"is also {part.place(one.key_of('port'))}"
            yield other.problem("port", message, "another port")


def _clash(one: Listening, two: Listening) -> bool:
    overlap = one.host == two.host or one.host in _ANY_HOST or two.host in _ANY_HOST
    return overlap and one.port == two.port


def _check_budget(part: _Part) -> Iterator[Problem]:
    spool = _block(part, Spool)
    least = _SEGMENTS_IN_BUDGET * spool.segment_bytes if spool is not None else 0
    if spool is not None and spool.budget_bytes < least:
        yield part.problem("budget_bytes", "is too small", f"at least {least}, two segments")


def _check_ttl(part: _Part) -> Iterator[Problem]:
    """Find a resolution that is kept for less time than a finer one."""
    core = _block(part, Core)
    if core is None:
        return
    for (finer, shorter_days), (coarser, longer_days) in pairwise(core.ttl_days.items()):
        if longer_days >= shorter_days:
            continue
        # The one that is not set is metricsDataTTL.
        if getattr(core, coarser):
            want = f"at least {shorter_days}, as {core.key_of(finer)}"
            yield part.problem(coarser, "is too short", want)
        else:
            want = f"at most {longer_days}, as {core.key_of(coarser)}"
            yield part.problem(finer, "is too long", want)


def _block(part: _Part, kind: type[_BlockT]) -> _BlockT | None:
    return part.block if isinstance(part.block, kind) else None
