"""A process that tries messages apart, to see whether a process outlives them.

    python -m framewalk.engine.runs.probe

It reads a line of JSON (`Setup`), then one for each attempt (`Attempt`). Each attempt has a process
of its own, forked from this one, which has loaded everything and computed nothing: it does what an
engine does with messages, but commits them to a store in memory, or not at all. Lines tell its
number, and its exit status when it has ended.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from framewalk.engine.archive import Archive, ArchiveOptions, Keeper, Mode, Shown
from framewalk.engine.errors import StoreRoomError
from framewalk.engine.kubernetes import Entities
from framewalk.engine.oal import load_plan_of_files
from framewalk.engine.processes import end_with_parent
from framewalk.engine.runs.pending import Pending
from framewalk.engine.runs.quarantine import Place, alone, without
from framewalk.engine.runs.reading import Span, batches_of
from framewalk.engine.stages import Carried, first_phase, pieces, with_nameless
from framewalk.engine.store import IN_MEMORY, Reached, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from framewalk.engine.oal import Plan
    from framewalk.engine.stages import Keep
    from framewalk.engine.states import States


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine computes with; `entities` is a table of addresses as an Arrow file.

    Logs are archived as `archive_mode` says, with some texts of requests, into a folder of
    `scratch`, which exists; None for no archive.
    """

    oal_paths: tuple[Path, ...] = ()
    apdex_path: Path | None = None
    entities: Path | None = None
    skip_unknown_scopes: bool = False
    endpoint_patterns_path: Path | None = None
    archive_mode: Mode | None = None
    archived_texts: tuple[str, ...] = ()
    scratch: Path | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The first `count` messages of spans without those in `left_out`, or one `only`.

    With `commits` what they amount to is written into a store, too.
    """

    spans: tuple[Span, ...]
    count: int
    commits: bool
    left_out: tuple[Place, ...] = field(default=())
    only: Place | None = None


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """In place of a store, where nothing is to be written."""

    plan: Plan

    def append(self, states: States) -> None:
        """Forget states that an engine would write."""


SETUP: Final = TypeAdapter(Setup)
ATTEMPT: Final = TypeAdapter(Attempt)


def main() -> None:
    """Try what is asked for, until nobody asks any more."""
    end_with_parent()
    # Who asked may have died before that, and does not read the answers.
    with suppress(BrokenPipeError):
        _answer()


def _answer() -> None:
    # Threads of libraries have done nothing yet, and an attempt that hangs for it is tried again.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = iter(_line, None)
    if (first := next(lines, None)) is None:
        return
    setup = SETUP.validate_json(first)
    plan = load_plan_of_files(
        setup.oal_paths,
        setup.apdex_path,
        setup.endpoint_patterns_path,
        skip_unknown_scopes=setup.skip_unknown_scopes,
    )
    answers.write(b"ready\n")
    for line in lines:
        attempt = ATTEMPT.validate_json(line)
        process = os.fork()
        if not process:
            end_with_parent()
            os._exit(_try(attempt, setup, plan))
        answers.write(b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        answers.write(b"%d\n" % os.waitstatus_to_exitcode(status))


def _line() -> bytes | None:
    """Read a line; None where there is none that is whole, as who asked has died."""
    line = sys.stdin.buffer.readline()
    return line if line.endswith(b"\n") else None


def _try(attempt: Attempt, setup: Setup, plan: Plan) -> int:
    try:
        entities = _entities(setup)
        messages = list(_messages(attempt))
        keep = None if setup.archive_mode is None else Keeper(setup.archive_mode)
        if attempt.commits:
            _commit(messages, entities, plan, setup)
        else:
            for _ in _computed(messages, entities, _Nowhere(plan), keep).rolled_up():
                pass
    except StoreRoomError:
        # A disk that is full says nothing of messages.
        return 0
    except BaseException:  # noqa: BLE001 - whatever would end an engine
        return 1
    return 0


def _commit(messages: list[pa.RecordBatch], entities: Entities, plan: Plan, setup: Setup) -> None:
    """Commit to a store in memory, and archive into a folder that is gone then."""
    with ExitStack() as stack:
        store = stack.enter_context(Store(IN_MEMORY, plan))
        archive = None
        if setup.archive_mode is not None:
            # Whoever has made `scratch` removes it: an attempt may not come to that.
            folder = Path(mkdtemp(dir=setup.scratch))
            options = ArchiveOptions(setup.archive_mode, Shown.of(setup.archived_texts))
            archive = stack.enter_context(Archive(store, folder, options))
        keep = None if archive is None else archive.keep
        computed = _computed(messages, entities, store, keep)
        computed.archive = archive
        reached = Reached(None, Path("probe"), [])
        also = partial(computed.list_archived, store)
        store.commit_many([reached], computed.rolled_up(), also=also)


def _computed(
    batches: list[pa.RecordBatch],
    entities: Entities,
    target: _Nowhere | Store,
    keep: Keep | None,
) -> Pending:
    # All logs, as an engine may have counted those that are ahead.
    pending = Pending(target, keeps_ahead=lambda _: True)
    carried = Carried()
    with_nameless(batches, entities)
    for messages in pieces(batches):
        pending.begin(messages.nbytes)
        for found, after in first_phase(messages, carried, entities, target.plan, keep=keep):
            pending.add(found)
            carried = after
    pending.decide()
    return pending


def _entities(setup: Setup) -> Entities:
    return Entities.empty() if setup.entities is None else Entities.read(setup.entities)


def _messages(attempt: Attempt) -> Iterator[pa.RecordBatch]:
    left = attempt.count
    for path, batch in batches_of(attempt.spans):
        if attempt.only is not None:
            if attempt.only.is_in(path, batch):
                yield alone(batch.messages, attempt.only.row)
            continue
        if not left:
            return
        rows = batch.messages.slice(0, left)
        left -= rows.num_rows
        yield without(rows, [one.row for one in attempt.left_out if one.is_in(path, batch)])


if __name__ == "__main__":
    main()
