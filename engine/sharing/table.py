"""The Delta table that engines share: the only place that its library is loaded in.

Delta keeps, with each commit of the table, how far an application is: of an engine that is its last
commit and that one's token. Whoever writes the same application at the same time is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError

from framewalk.engine.errors import TableAwayError, TableError
from framewalk.engine.oal import Plan, bind, make_plan, parse
from framewalk.engine.sharing.layout import (
    DAY,
    LAYOUT_VERSION,
    Layout,
    definitions_of,
    digest_of,
    layout_of,
    plan_settings,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from deltalake import DeltaTable

_INSTALL: Final = "install framewalk[distributed]"
_STATE: Final = "framewalk.state"
_VERSION: Final = "framewalk.version"
_DIGEST: Final = "framewalk.digest"
_DEFINITIONS: Final = "framewalk.definitions"
_SETTINGS: Final = "framewalk.settings"
_LOGS: Final = "framewalk.logs"
_NAME: Final = "framewalk"
# Only these columns are of use to find rows by: engine, commit, scope, minute.
_INDEXED: Final = 4
_LAST_MINUTE: Final = "max.minute"
# A follower that was away for longer reads the table anew; so does one that reads for so long.
_KEPT: Final = "interval 1 days"
_CONFIGURATION: Final = {
    "delta.checkpointInterval": "100",
    "delta.dataSkippingNumIndexedCols": str(_INDEXED),
    "delta.logRetentionDuration": _KEPT,
    "delta.deletedFileRetentionDuration": _KEPT,
}
_KEPT_HOURS: Final = 24
# Of the log of the table, a line an action: what is read of those that add files.
_LOG_SCHEMA: Final = {
    "add": pl.Struct(
        {
            "path": pl.String,
            "partitionValues": pl.Struct({DAY: pl.String}),
            "size": pl.Int64,
            "dataChange": pl.Boolean,
        }
    )
}
# Rows are mostly null: what is read at once is to be small in memory.
_GROUP_ROWS: Final = 32_768
_FILE_BYTES: Final = 64 * 2**20
# How long storage may take for an answer, and for all tries of one; others are made later.
_REMOTE_OPTIONS: Final = {"connect_timeout": "5s", "timeout": "30s", "retry_timeout": "20s"}
_RETRIES: Final = 3
_LONGEST: Final = 300
_AGAIN: Final = "it is tried again; see to the storage"


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of the table, by its path there, with its day."""

    path: str
    day: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tidied:
    """What was done for a table's size."""

    merged_files: int
    expired_files: int
    deleted_files: int


class SharedTable:
    """A table by its address: a path, or a URI as `s3://bucket/path`.

    What storage asks for is taken from the environment as the library takes it (AWS_...). Not to
    be used by two threads at once.

    Raises:
        TableError: the library is not installed.
    """

    def __init__(self, uri: str) -> None:
        try:
            import deltalake  # noqa: PLC0415 - whoever does not share needs it not
        except ImportError as error:
            problem = "the library for tables that engines share is not installed"
            raise TableError(uri, problem, _INSTALL) from error
        self._library = deltalake
        is_remote = self._is_remote = "://" in uri and not uri.startswith("file://")
        self.uri = uri if "://" in uri else str(Path(uri).absolute())
        self._options = {**_REMOTE_OPTIONS, **_stated(os.environ)} if is_remote else {}
        self._table: DeltaTable | None = None
        self._layout: Layout | None = None

    def open(self) -> bool:
        """Take the table as it is by now; False where there is none. Raises TableError."""
        with self._explaining():
            if self._table is None:
                try:
                    self._table = self._library.DeltaTable(self.uri, storage_options=self._options)
                except self._library.exceptions.TableNotFoundError:
                    return False
            else:
                self._table.update_incremental()
        if self._layout is None:
            self._layout = self._read_layout()
        return True

    def create(self, plan: Plan, logs_id: str = "") -> None:
        """Make the table for what a plan computes, unless somebody has made it meanwhile.

        `logs_id` is that of the table of logs beside it, empty without one.
        """
        said = {
            _VERSION: str(LAYOUT_VERSION),
            _DIGEST: digest_of(plan),
            _DEFINITIONS: json.dumps(definitions_of(plan)),
            _SETTINGS: json.dumps(settings_of(plan)),
            _LOGS: logs_id,
        }
        self._make(layout_of(plan), said)

    def _make(self, layout: Layout, said: Mapping[str, str]) -> None:
        library = self._library
        schema = library.Schema.from_arrow(
            pa.schema(pl.DataFrame(schema=layout.schema).to_arrow().schema)
        )
        fields = [
            library.Field(
                one.name,
                one.type,
                metadata={_STATE: layout.states_of[one.name]}
                if one.name in layout.states_of
                else None,
            )
            for one in schema.fields
        ]
        with self._explaining(), contextlib.suppress(library.exceptions.CommitFailedError):
            library.DeltaTable.create(
                self.uri,
                library.Schema(fields),
                mode="ignore",
                partition_by=[DAY],
                name=_NAME,
                configuration=_CONFIGURATION | {**said},
                storage_options=self._options,
                raise_if_key_not_exists=False,
            )
        self._table = None
        self.open()

    @property
    def id(self) -> str:
        """What tells the table from all others."""
        return str(self._opened.metadata().id)

    @property
    def version(self) -> int:
        """The number of the table's last commit that is known here."""
        return self._opened.version()

    @property
    def layout(self) -> Layout:
        """The columns."""
        assert self._layout is not None, "it is open"  # noqa: S101
        return self._layout

    @property
    def digest(self) -> str:
        """What `digest_of` says of the plan that the table is for."""
        return str(self._configuration.get(_DIGEST, ""))

    def plan(self) -> Plan:
        """Return a plan of the table's definitions, to read what others have computed."""
        texts = json.loads(str(self._configuration.get(_DEFINITIONS, "[]")))
        settings = plan_settings(json.loads(self._configuration.get(_SETTINGS) or "null"))
        return make_plan(bind([parse("\n".join(texts), self.uri)]).metrics, *settings)

    @property
    def logs_id(self) -> str:
        """The id of the table of logs that belongs to it; empty where engines publish none."""
        return str(self._configuration.get(_LOGS) or "")

    def published(self, engine: str) -> tuple[int, int]:
        """Return the last commit of an engine in the table, and its token; (0, 0) without one."""
        with self._explaining():
            last = self._opened.transaction_version(engine)
            token = self._opened.transaction_version(_token_of(engine))
        return last or 0, token or 0

    def append(self, engine: str, last: int, token: int, rows: pl.DataFrame) -> None:
        """Add rows (all columns of the layout), with which an engine reaches a commit.

        Raises TableError, also where somebody has published for the same engine since `open`, and
        where it is not known whether it was done: `open` and `published` tell.
        """
        library = self._library
        transactions = [
            library.Transaction(engine, last),
            library.Transaction(_token_of(engine), token),
        ]
        with self._explaining():
            library.write_deltalake(
                self._opened,
                rows.to_arrow(),
                mode="append",
                target_file_size=_FILE_BYTES,
                writer_properties=self._writing(),
                commit_properties=library.CommitProperties(app_transactions=transactions),
            )

    def files(self) -> list[SharedFile]:
        """Return the files of the version that is open, those with the oldest minutes first."""
        with self._explaining():
            found = pl.DataFrame(pa.table(self._opened.get_add_actions(flatten=True)))
        found = found.rename({f"partition.{DAY}": DAY})
        order = [name for name in (DAY, _LAST_MINUTE, "path") if name in found.columns]
        named = found.sort(order).select("path", DAY, "size_bytes")
        return [SharedFile(*row) for row in named.iter_rows()]

    def added(self, version: int) -> list[SharedFile] | None:
        """Return the files that a version of the table has added with new rows.

        None where the table does not say any more.
        """
        name = f"_delta_log/{version:020}.json"
        try:
            with self._explaining():
                log = pl.scan_ndjson(self._source(name), schema=_LOG_SCHEMA, **self._reading)
                actions = log.drop_nulls().unnest("add").filter("dataChange").collect()
        except FileNotFoundError:
            return None
        found = actions.unnest("partitionValues").select("path", DAY, "size")
        return [SharedFile(*row) for row in found.iter_rows()]

    def added_after(
        self, version: int, most_versions: int, most_bytes: int
    ) -> tuple[int, list[SharedFile]] | None:
        """Return the versions that follow one, by the last of them, and the files they have added.

        As many as are within the limits, or one that is not; None where the table does not say what
        the next one has added.
        """
        files: list[SharedFile] = []
        last = version
        while last < min(self.version, version + most_versions):
            added = self.added(last + 1)
            if added is None:
                return (last, files) if last > version else None
            files += added
            last += 1
            if sum(one.size_bytes for one in files) > most_bytes:
                break
        return last, files

    def rows(self, file: SharedFile) -> Iterator[pl.DataFrame]:
        """Yield the rows of a file, some at a time. Raises TableError; FileNotFoundError."""
        # Files do not have the columns that they are partitioned by.
        day = pl.lit(file.day).alias(DAY)
        with self._explaining():
            reading = pl.scan_parquet(
                f"{self.uri}/{file.path}", glob=False, hive_partitioning=False, **self._reading
            )
            height, begin = _GROUP_ROWS, 0
            while height == _GROUP_ROWS:
                # A slice at a time: of what is read in batches much more is held in memory.
                batch = reading.slice(begin, _GROUP_ROWS).collect()
                height, begin = batch.height, begin + _GROUP_ROWS
                yield self.layout.whole(batch.with_columns(day)).cast(self.layout.schema)

    def tidy(self, before_day: str | None) -> Tidied:
        """Merge small files, delete days before one, and what has been replaced for a day.

        Followers notice nothing: what is merged is said to hold no new rows.
        """
        table = self._opened
        with self._explaining():
            deleted: dict[str, Any] = {}
            if before_day is not None:
                deleted = table.delete(f"{DAY} < '{before_day}'")
            merged = table.optimize.compact(
                target_size=_FILE_BYTES, max_concurrent_tasks=1, writer_properties=self._writing()
            )
            gone = table.vacuum(retention_hours=_KEPT_HOURS, dry_run=False)
            table.create_checkpoint()
            table.cleanup_metadata()
        return Tidied(
            int(merged["numFilesRemoved"]), int(deleted.get("num_removed_files", 0)), len(gone)
        )

    @property
    def _reading(self) -> dict[str, Any]:
        """How Polars reads: unlike the library it lets other threads work meanwhile."""
        if not self._is_remote:
            return {}
        return {"storage_options": {"max_retries": _RETRIES}, "credential_provider": None}

    def _source(self, name: str) -> str | bytes:
        """Return a file of lines; one that is here is read, as its path may look like a pattern."""
        if self._is_remote:
            return f"{self.uri}/{name}"
        return Path(self.uri.removeprefix("file://"), name).read_bytes()

    def _writing(self) -> Any:  # noqa: ANN401 - the library's own class
        return self._library.WriterProperties(compression="ZSTD", max_row_group_size=_GROUP_ROWS)

    def _read_layout(self) -> Layout:
        version = self._configuration.get(_VERSION)
        if version is None:
            problem, remedy = "this Delta table is not framewalk's", "name another place"
            raise TableError(self.uri, problem, remedy)
        if int(version) != LAYOUT_VERSION:
            problem = f"its version is {version}, and {LAYOUT_VERSION} is known here"
            raise TableError(self.uri, problem, "use the same framewalk everywhere")
        states: dict[str, str] = {}
        fields = json.loads(self._opened.schema().to_json())["fields"]
        for one in fields:
            if _STATE in one["metadata"]:
                states[one["metadata"][_STATE]] = one["name"]
        planned = layout_of(self.plan())
        types = {states[name]: planned.types[planned.states[name]] for name in states}
        return Layout(states, types)

    @property
    def _opened(self) -> DeltaTable:
        assert self._table is not None, "it is open"  # noqa: S101
        return self._table

    @property
    def _configuration(self) -> Mapping[str, str]:
        return self._opened.metadata().configuration

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (self._library.exceptions.DeltaError, OSError, PolarsError) as error:
            raise TableAwayError(self.uri, _said(error), _AGAIN) from error


def before_day(now_s: float, keep_days: int) -> str:
    """Return the first day (UTC) that is kept, as the table has it."""
    return datetime.fromtimestamp(now_s - keep_days * 86_400, UTC).date().isoformat()


def _token_of(engine: str) -> str:
    return f"{engine}/token"


def _stated(environment: Mapping[str, str]) -> dict[str, str]:
    """Return which of the options for time the environment states, as AWS_TIMEOUT."""
    named = {name: f"AWS_{name.upper()}" for name in _REMOTE_OPTIONS}
    return {
        name: environment[variable] for name, variable in named.items() if variable in environment
    }


def _said(error: Exception) -> str:
    """Return what the library says in many lines with colours, as one."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\u21b3", "", str(error))
    words = " ".join(plain.split()) or type(error).__name__
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
