"""Variables of the environment that look like settings and are none: typing errors, mostly."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.server.config.files import DEFAULT_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_OURS: Final = ("FRAMEWALK_", "SW_")
_NAMED: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")
# What commands take, beside the files.
_OF_COMMANDS: Final = (
    "FRAMEWALK_FOLLOW_URI",
    "FRAMEWALK_METRICS_URL",
    "FRAMEWALK_SQL_SERVER",
    "FRAMEWALK_STORE_PATH",
    "FRAMEWALK_TOKEN",
    "FRAMEWALK_TRACEBACK",
)
# What Kubernetes sets in every pod for a Service, such as one that is called framewalk.
_OF_A_SERVICE: Final = re.compile(
    r".*_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|.*_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")
_NEAR: Final = 0.8


class UnknownVariable(NamedTuple):
    """A variable that nothing reads, and what it may have been meant for."""

    name: str
    hint: str


def unknown_variables(
    path: Path | None, environment: Mapping[str, str]
) -> tuple[UnknownVariable, ...]:
    """Return the variables called FRAMEWALK_* and SW_* that neither file nor command reads.

    Args:
        path: the file that is laid over the default file, if any; it can be read.
        environment: the variables.
    """
    texts = [one.read_text(encoding="utf-8") for one in (DEFAULT_FILE, path) if one is not None]
    known = sorted({*_OF_COMMANDS, *_NAMED.findall("\n".join(texts))})
    return tuple(
        UnknownVariable(name, _hint(name, known)) for name in _candidates(environment, known)
    )


def _candidates(environment: Mapping[str, str], known: list[str]) -> Iterator[str]:
    for name in sorted(environment):
        is_of_a_service = _OF_A_SERVICE.fullmatch(name) or (
            name.endswith("_PORT") and _ADDRESS.fullmatch(environment[name])
        )
        if name.upper().startswith(_OURS) and name not in known and not is_of_a_service:
            yield name


def _hint(name: str, known: list[str]) -> str:
    near = get_close_matches(name.upper(), known, n=1, cutoff=_NEAR)
    return f"did you mean {near[0]}?" if near else "framewalk has no such setting"
