"""The types that configuration values have: how each is read from text, and what it may be.

A text among the metadata of a type says what is wanted; a number says it by its limits.
"""

import ipaddress
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from framewalk.engine.kubernetes import source_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME: Final = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_TOKEN: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_KEPT_TEXTS: Final = ("hosts", "paths", "queries", "traces")
_YEAR_S: Final = 366 * 86_400
_GIBIBYTE: Final = 2**30
_PEBIBYTE: Final = 2**50
_REFUSED: Final = "refused"
_LIMITS: Final = ("gt", "ge", "le")
_OUT_OF_RANGE: Final = "is out of range"
_NO_WHOLE_NUMBER: Final = "is not a whole number"
_NO_NUMBER: Final = "is not a number"
_NO_FLAG: Final = "is neither true nor false"
_COMPLAINTS: Final = {
    "int_parsing": _NO_WHOLE_NUMBER,
    "int_type": _NO_WHOLE_NUMBER,
    "int_parsing_size": _OUT_OF_RANGE,
    "float_parsing": _NO_NUMBER,
    "float_type": _NO_NUMBER,
    "bool_parsing": _NO_FLAG,
    "bool_type": _NO_FLAG,
    "greater_than": _OUT_OF_RANGE,
    "greater_than_equal": _OUT_OF_RANGE,
    "less_than_equal": _OUT_OF_RANGE,
    "finite_number": _OUT_OF_RANGE,
    "literal_error": "is not one of the choices",
}


def file_problem(path: Path) -> str:
    """Say why `path` is no file that can be read, as in "does not exist"; empty if it is one."""
    return _path_problem(path) or ("" if path.is_file() else "is not a file")


def _path_problem(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read ({_reason(error)})"
    return "" if os.access(path, os.R_OK) else "cannot be read (permission denied)"


def _reason(error: OSError | ValueError) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error)).lower()


def _refuse(problem: str) -> NoReturn:
    # Not as the template itself: a path may hold braces.
    raise PydanticCustomError(_REFUSED, "{problem}", {"problem": problem})


def _check_host(text: str) -> str:
    if _HOST_NAME.fullmatch(text):
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        _refuse("is not an address")


def _check_token(token: SecretStr | None) -> SecretStr | None:
    if token is not None and not _TOKEN.fullmatch(token.get_secret_value()):
        _refuse("cannot be sent as a token")
    return token


def _networks(texts: object) -> object:
    parts = _split(texts)
    if not isinstance(parts, list | tuple):
        return parts
    networks = []
    for text in parts:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            _refuse(f"names '{text}', which is no address or network ({error})")
    return tuple(networks)


def _check_file(path: Path | None) -> Path | None:
    problem = file_problem(path) if path is not None else ""
    if problem:
        _refuse(problem)
    return path


def _check_paths(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    for path in paths:
        problem = _path_problem(path)
        if problem:
            _refuse(f"names '{path}', which {problem}" if len(paths) > 1 else problem)
    return paths


def _check_sources(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    _check_paths(tuple(source_of(path).path for path in paths))
    return paths


def _check_kept(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in _KEPT_TEXTS:
            _refuse(f"names '{name}', which is not one of {', '.join(_KEPT_TEXTS)}")
    return names


def _check_host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            _refuse(f"names '{name}', which is no host name")
    return tuple(name.lower() for name in names)


def _check_folder_to_be(path: Path) -> Path:
    return _check_to_be(path, stat.S_ISDIR, "is not a folder")


def _check_optional_folder(path: Path | None) -> Path | None:
    return None if path is None else _check_folder_to_be(path)


def _check_file_to_be(path: Path) -> Path:
    return _check_to_be(path, stat.S_ISREG, "is not a file")


def _check_to_be(path: Path, is_right: Callable[[int], bool], otherwise: str) -> Path:
    """Let pass what is right or not there yet."""
    try:
        right = is_right(path.stat().st_mode)
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        _refuse(f"cannot be used ({_reason(error)})")
    if not right:
        _refuse(otherwise)
    return path


def _some(text: object) -> object:
    if not text:
        _refuse("is empty")
    return text


def _none_if_empty(text: object) -> object:
    return text or None


def _split(text: object) -> object:
    if isinstance(text, str):
        return tuple(part for part in map(str.strip, text.split(",")) if part)
    return text


Host = Annotated[str, AfterValidator(_check_host), "an IP address or a host name"]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrZero = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1, le=10**9)]
# A request that was served for longer is followed no further (engine/archive/sampling.py).
SlowMs = Annotated[int, Field(ge=1, le=60_000)]
CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
MessageBytes = Annotated[int, Field(ge=1, le=_GIBIBYTE)]
MessageBytesOrZero = Annotated[int, Field(ge=0, le=_GIBIBYTE)]
Bytes = Annotated[int, Field(ge=1024, le=_PEBIBYTE)]
BytesOrZero = Annotated[int, Field(ge=0, le=_PEBIBYTE)]
Seconds = Annotated[float, Field(gt=0, le=_YEAR_S, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=_YEAR_S, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=1, le=36_600)]
DaysOrZero = Annotated[int, Field(ge=0, le=36_600)]
Flag = Annotated[bool, "true or false"]
Text = Annotated[str, "text, or nothing"]
Texts = Annotated[tuple[str, ...], BeforeValidator(_split), "texts, separated by commas"]
KeptTexts = Annotated[
    tuple[str, ...],
    BeforeValidator(_split),
    AfterValidator(_check_kept),
    f"some of {', '.join(_KEPT_TEXTS)}, separated by commas",
]
HostNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_split),
    AfterValidator(_check_host_names),
    "host names, separated by commas",
]
OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty), "the path of a file"]
ExistingFile = Annotated[
    Path | None,
    BeforeValidator(_none_if_empty),
    AfterValidator(_check_file),
    "the path of a file that is there, or nothing",
]
ExistingSources = Annotated[
    tuple[Path, ...],
    BeforeValidator(_split),
    AfterValidator(_check_sources),
    "paths of files or folders that are there, separated by commas",
]
ExistingPaths = Annotated[
    tuple[Path, ...],
    BeforeValidator(_split),
    AfterValidator(_check_paths),
    "paths of files or folders that are there, separated by commas",
]
Networks = Annotated[
    tuple[Network, ...],
    BeforeValidator(_networks),
    "addresses or networks, separated by commas",
]
FolderToBe = Annotated[
    Path, BeforeValidator(_some), AfterValidator(_check_folder_to_be), "the path of a folder"
]
OptionalFolder = Annotated[
    Path | None,
    BeforeValidator(_none_if_empty),
    AfterValidator(_check_optional_folder),
    "the path of a folder, or nothing",
]
FileToBe = Annotated[
    Path, BeforeValidator(_some), AfterValidator(_check_file_to_be), "the path of a file"
]
Token = Annotated[
    SecretStr | None,
    BeforeValidator(_none_if_empty),
    AfterValidator(_check_token),
    "printable ASCII without blanks at its ends",
]


def complaint(details: ErrorDetails) -> str:
    """Say what is wrong with a value, as in "is out of range"."""
    kind = details["type"]
    if kind == _REFUSED:
        return details["msg"]
    return _COMPLAINTS.get(kind, "is a list")


def wanted(field: FieldInfo) -> str:
    """Say what a field takes, as in "a whole number from 1 to 65535"."""
    if choices(field):
        return " or ".join(choices(field))
    words = [one for one in field.metadata if isinstance(one, str)]
    if words:
        return words[0]
    limits = {
        name: getattr(one, name) for one in field.metadata for name in _LIMITS if hasattr(one, name)
    }
    low = f"above {limits['gt']} and up to" if "gt" in limits else f"from {limits['ge']} to"
    kind = "a whole number" if field.annotation is int else "a number"
    return f"{kind} {low} {limits['le']}"


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the texts that a field takes, if it takes only some."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def is_secret(field: FieldInfo) -> bool:
    """Tell whether a field's value must not be shown."""
    return SecretStr in get_args(field.annotation)
