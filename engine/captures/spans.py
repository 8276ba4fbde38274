"""Whole record batches from the middle of a capture, for who does not read what is before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from framewalk.engine.captures.format import (
    DAMAGE,
    as_capture_schema,
    not_opened,
    open_capture,
    open_digesting,
)
from framewalk.engine.captures.objects import ObjectFile, ObjectPath
from framewalk.engine.errors import CaptureError

if TYPE_CHECKING:
    from pathlib import Path


def can_be_cut(path: Path) -> bool:
    """Tell whether record batches can be read without those before them: no dictionary is there.

    Raises CaptureError for what is no capture.
    """
    return "dictionary<" not in str(_schema(path))


def read_span(path: Path, begin_bytes: int, end_bytes: int) -> list[pa.RecordBatch]:
    """Return the record batches between two ends of some, in CAPTURE_SCHEMA.

    The first byte after the head is one, too. Raises CaptureError where they are not there.
    """
    batches = []
    file = _opened(path)
    try:
        with file:
            schema = open_capture(path, file).schema
            file.seek(begin_bytes)
            if isinstance(file, ObjectFile):
                file.will_read(end_bytes - begin_bytes)
            while file.tell() < end_bytes:
                batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
                batches.append(as_capture_schema(batch))
            is_whole = file.tell() == end_bytes
    except (*DAMAGE, KeyError, EOFError) as error:
        raise _changed(path) from error
    if not is_whole:
        raise _changed(path)
    return batches


def _opened(path: Path) -> pa.NativeFile | ObjectFile:
    if isinstance(path, ObjectPath):
        return ObjectFile(path)
    try:
        return pa.OSFile(str(path), "rb")
    except OSError as error:
        raise not_opened(path, error) from error


def _schema(path: Path) -> pa.Schema:
    file = open_digesting(path)
    try:
        return open_capture(path, file).schema
    finally:
        file.close()


def _changed(path: Path) -> CaptureError:
    problem = "it is not what it was when it was opened"
    return CaptureError(path, problem, "run this again, and leave the file alone meanwhile")
