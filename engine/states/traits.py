"""What the connections of an entity are like, as a set of bits that merges by union.

The bits hold the component ids (schemas.COMPONENT_IDS), TLS modes and detect points seen.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from framewalk.engine.oal import DETECT_POINTS
from framewalk.engine.schemas import COMPONENT_IDS, ROLES, TLS_MODES

COMPONENTS_AT: Final = 0
TLS_MODES_AT: Final = len(COMPONENT_IDS)
DETECT_POINTS_AT: Final = TLS_MODES_AT + len(TLS_MODES)


_HTTP_PROTOCOLS: Final = (1, 2)
_TLS: Final = 1
_MTLS: Final = 0


def components_expression() -> pl.Expr:
    """Return the bits of the component ids of a row of connections (analysis.md, section 3).

    Of the columns protocol, tls_mode, has_ztunnel and ztunnel_policy, numbers of enums.
    """
    http = pl.col("protocol").is_in(_HTTP_PROTOCOLS)
    tls = pl.col("tls_mode") == _TLS
    mtls = pl.col("ztunnel_policy") == _MTLS
    return (
        pl.when("has_ztunnel")
        .then(pl.when(mtls).then(_components(142, 162)).otherwise(_components(162)))
        .when(http)
        .then(pl.when(tls).then(_components(129)).otherwise(_components(49)))
        .otherwise(pl.when(tls).then(_components(130)).otherwise(_components(110)))
    )


def _components(*component_ids: int) -> pl.Expr:
    return pl.lit(sum(1 << COMPONENTS_AT + COMPONENT_IDS.index(one) for one in component_ids))


def traits_expression() -> pl.Expr:
    """Return the bits of a row of peers (PEER_SCHEMA)."""
    tls_mode = _bit_of("tls_mode", TLS_MODES, TLS_MODES_AT)
    detect_point = _bit_of("role", ROLES, DETECT_POINTS_AT)
    return pl.col("components") + tls_mode + detect_point


def _bit_of(column: str, names: tuple[str, ...], first_bit: int) -> pl.Expr:
    bits = [1 << (first_bit + index) for index in range(len(names))]
    return pl.col(column).replace_strict(list(names), bits, return_dtype=pl.Int64)


def component_names() -> dict[int, str]:
    """Map bits to component ids, written as text."""
    return {1 << COMPONENTS_AT + i: str(name) for i, name in enumerate(COMPONENT_IDS)}


def tls_mode_names() -> dict[int, str]:
    """Map bits to TLS modes."""
    return {1 << TLS_MODES_AT + i: name for i, name in enumerate(TLS_MODES)}


def detect_point_names() -> dict[int, str]:
    """Map bits to detect points."""
    return {1 << DETECT_POINTS_AT + i: name for i, name in enumerate(DETECT_POINTS)}
