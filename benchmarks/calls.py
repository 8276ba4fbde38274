"""How many calls are put together rightly, and how many sources are right, of made captures.

    python benchmarks/calls.py

Captures of `framewalk generate` with what really happened beside. Of pairs and of sources it tells
how many of those found are right, and how many of those that there are were found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from framewalk.engine import CaptureReader, read_entities
from framewalk.engine.calls import pair, read_http_logs, with_sources
from framewalk.fixtures import GenerateOptions, generate

DURATION_S: Final = 90
QUIET: Final = 3.0
BUSY: Final = 40.0
BASE: Final = GenerateOptions("bookinfo", duration_s=DURATION_S)
CASES: Final = {
    "quiet": replace(BASE, requests_per_second=QUIET),
    "quiet, no traces": replace(BASE, requests_per_second=QUIET, traced_permille=0),
    "quiet, all traced": replace(BASE, requests_per_second=QUIET, traced_permille=1000),
    "quiet, clocks 2 s apart, 1% lost": replace(
        BASE, requests_per_second=QUIET, clock_offset_s=2, lost_permille=10
    ),
    "busy, no traces": replace(BASE, requests_per_second=BUSY, traced_permille=0),
    "busy, all traced": replace(BASE, requests_per_second=BUSY, traced_permille=1000),
    "busy, clocks 2 s apart, 1% lost": replace(
        BASE, requests_per_second=BUSY, clock_offset_s=2, lost_permille=10
    ),
    "busy, own connections, clocks 2 s apart, 1% lost": replace(
        BASE,
        requests_per_second=BUSY,
        clock_offset_s=2,
        lost_permille=10,
        one_request_permille=1000,
    ),
}
HEADINGS: Final = (
    *("capture", "calls", "pairs right", "right, or alike", "pairs found", "exact", "exact right"),
    *("inferred", "inferred right", "attributed", "attributed where requests do not overlap"),
)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole; `text` has it in percent."""

    part: int
    whole: int

    @property
    def text(self) -> str:
        """The share in percent, or nothing without a whole."""
        return f"{100 * self.part / self.whole:.2f}%" if self.whole else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found of a capture; the last two are of the calls that were made for a request."""

    calls: int
    pairs_right: Share
    pairs_alike: Share
    pairs_found: Share
    exact_right: Share
    inferred_right: Share
    attributed: Share
    attributed_alone: Share

    def cells(self, name: str) -> list[str]:
        """Return a row of the table."""
        return [
            name,
            f"{self.calls:,}",
            self.pairs_right.text,
            self.pairs_alike.text,
            self.pairs_found.text,
            f"{self.exact_right.whole:,}",
            self.exact_right.text,
            f"{self.inferred_right.whole:,}",
            self.inferred_right.text,
            self.attributed.text,
            self.attributed_alone.text,
        ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--duration", type=int, default=DURATION_S, help="seconds of a capture")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="captures with this in their name"
    )
    arguments = parser.parse_args()
    print(_row(HEADINGS))
    print(_row(["---"] * len(HEADINGS)))
    used_s, logs = 0.0, 0
    for scenario in ("bookinfo", "boutique"):
        for name, options in CASES.items():
            if arguments.only not in f"{scenario}, {name}":
                continue
            options = replace(options, scenario=scenario, duration_s=arguments.duration)  # noqa: PLW2901
            answer, took_s, count = measured(options)
            used_s, logs = used_s + took_s, logs + count
            print(_row(answer.cells(f"{scenario}, {name}")), flush=True)
    print(f"\n{used_s / logs * 1e6:.2f} s of CPU per million HTTP logs")


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def measured(options: GenerateOptions) -> tuple[Answer, float, int]:
    """Make a capture and compare what is found in it with what really happened."""
    with tempfile.TemporaryDirectory() as folder:
        capture, dump, calls = (Path(folder) / name for name in ("capture", "dump", "calls"))
        generate(options, capture, dump, truth_path=calls)
        entities = read_entities(dump)
        with CaptureReader(capture) as reader:
            logs = read_http_logs((batch.messages for batch in reader), entities)
        truth = pl.read_parquet(calls)
    began_s = time.process_time()
    found = with_sources(pair(logs), logs)
    took_s = time.process_time() - began_s
    return compared(found, logs, truth), took_s, logs.height


def compared(found: pl.DataFrame, logs: pl.DataFrame, truth: pl.DataFrame) -> Answer:
    """Compare calls with the truth, log by log."""
    call_of_log = _calls_of_logs(logs, truth)
    calls = found.with_columns(
        client=call_of_log.gather(found["client_log"]),
        server=call_of_log.gather(found["server_log"]),
        source=call_of_log.gather(found["source_log"]),
    )
    both = calls.drop_nulls(["client_log", "server_log"])
    right = int((both["client"] == both["server"]).sum())
    wrong = both.filter(pl.col("client") != pl.col("server"))
    # Two calls that are alike and overlap, whose logs were exchanged: each log has a partner still.
    exchanged = wrong.join(wrong.select(client="server"), on="client", how="semi").height
    seen = pl.concat([calls["client"], calls["server"]]).drop_nulls()
    possible = seen.len() - seen.n_unique()
    own = calls.with_columns(call=pl.coalesce("client", "server")).join(
        _with_alone(truth).select("call", "source_call", "is_alone"), on="call", how="left"
    )
    is_right = (pl.col("source") == pl.col("source_call")).fill_null(value=False)
    of_source = own.filter(pl.col("source_call").is_not_null())
    alone = of_source.filter(pl.col("is_alone").fill_null(value=False))
    return Answer(
        own.height,
        Share(right, both.height),
        Share(right + exchanged, both.height),
        Share(right, possible),
        _share(own.filter(pl.col("derivation") == "exact"), is_right),
        _share(own.filter(pl.col("derivation") == "inferred"), is_right),
        _share(of_source, is_right),
        _share(alone, is_right),
    )


def _share(rows: pl.DataFrame, is_right: pl.Expr) -> Share:
    return Share(int(rows.select(is_right.sum()).item()), rows.height)


def _calls_of_logs(logs: pl.DataFrame, truth: pl.DataFrame) -> pl.Series:
    """Return the call that each log is of."""
    sides = pl.concat(
        truth.select("call", "path", is_server=pl.lit(side == "server"), time_ns=f"{side}_log_ns")
        for side in ("client", "server")
    ).drop_nulls("time_ns")
    asked = logs.select("time_ns", "path", is_server=pl.col("role") == "server")
    found = asked.join(
        sides, on=["time_ns", "path", "is_server"], how="left", maintain_order="left"
    )
    assert found.height == logs.height, "a time of a log is that of one call"
    return found["call"]


def _with_alone(truth: pl.DataFrame) -> pl.DataFrame:
    """Tell of each call whether the request that it was made for overlapped no other in its pod."""
    before = pl.col("served_ns").cum_max().shift(1).over("server_pod")
    after = pl.col("arrived_ns").shift(-1).over("server_pod")
    requests = (
        truth.sort("arrived_ns")
        .with_columns(
            is_alone=(pl.col("arrived_ns") > before.fill_null(0))
            & (after.is_null() | (pl.col("served_ns") < after))
        )
        .select(source_call="call", is_alone="is_alone")
    )
    return truth.join(requests, on="source_call", how="left")


if __name__ == "__main__":
    main()
