"""The captures that benchmarks read: made by the generator once, then kept.

A capture's file is named by a digest of the options and of the generator's source, so what lies
in the cache is always what the generator of today would make.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import framewalk.fixtures
from framewalk.engine.captures import CAPTURE_SUFFIX
from framewalk.fixtures import GenerateOptions, GenerateSummary, generate

if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE: Final = Path(__file__).parents[2] / "build" / "bench" / "captures"


@dataclass(frozen=True, slots=True)
class Size:
    """How large the benchmarks are. The growth series start from `growth` and double.

    `sample_messages` bounds what a benchmark of one stage holds in memory; the whole replay
    takes all of `main`. With `warm_up` a first run is not counted.
    """

    name: str
    main: GenerateOptions
    growth: GenerateOptions
    doublings: int
    sample_messages: int
    row_messages: int
    rounds: int
    warm_up: bool
    store_hours: int


SIZES: Final[Mapping[str, Size]] = {
    "small": Size(
        name="small",
        main=GenerateOptions("boutique", duration_s=70, requests_per_second=2),
        growth=GenerateOptions("boutique", duration_s=20, requests_per_second=4),
        doublings=1,
        sample_messages=2_000,
        row_messages=200,
        rounds=1,
        warm_up=False,
        store_hours=2,
    ),
    "medium": Size(
        name="medium",
        main=GenerateOptions("boutique", duration_s=300, requests_per_second=30),
        growth=GenerateOptions("boutique", duration_s=60, requests_per_second=20),
        doublings=3,
        sample_messages=100_000,
        row_messages=2_000,
        rounds=3,
        warm_up=True,
        store_hours=6,
    ),
    "large": Size(
        name="large",
        main=GenerateOptions("boutique", duration_s=600, requests_per_second=90),
        growth=GenerateOptions("boutique", duration_s=60, requests_per_second=40),
        doublings=4,
        sample_messages=150_000,
        row_messages=4_000,
        rounds=5,
        warm_up=True,
        store_hours=24,
    ),
}


@dataclass(frozen=True, slots=True)
class Capture:
    """A made capture and the cluster's Kubernetes dump."""

    path: Path
    dump_path: Path
    summary: GenerateSummary


def capture_of(options: GenerateOptions, cache_folder: Path = CACHE) -> Capture:
    """Return the capture of these options; the generator runs only if it is not there yet."""
    folder = cache_folder / _key(options)
    capture, dump = folder / f"{options.scenario}{CAPTURE_SUFFIX}", folder / "kubectl.yaml"
    summary_path = folder / "summary.json"
    if summary_path.exists():
        made = GenerateSummary(**json.loads(summary_path.read_text(encoding="utf-8")))
        return Capture(capture, dump, made)
    folder.mkdir(parents=True, exist_ok=True)
    made = generate(options, capture, dump)
    # Last, so that a capture without it is known to be cut off.
    summary_path.write_text(json.dumps(asdict(made)) + "\n", encoding="utf-8")
    return Capture(capture, dump, made)


def _key(options: GenerateOptions) -> str:
    named = asdict(options) | {"start": options.start.isoformat()}
    digest = hashlib.blake2b(_source_digest(), digest_size=8)
    digest.update(json.dumps(named, sort_keys=True).encode())
    rate = f"{options.requests_per_second:g}"
    return f"{options.scenario}-{options.duration_s}s-{rate}rps-{digest.hexdigest()}"


@cache
def _source_digest() -> bytes:
    digest = hashlib.blake2b()
    for source in sorted(Path(framewalk.fixtures.__path__[0]).glob("*.py")):
        digest.update(source.read_bytes())
    return digest.digest()
