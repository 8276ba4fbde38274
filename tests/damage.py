"""Files that are not as they were written."""

from __future__ import annotations

from pathlib import Path


def spoil(file: Path) -> None:
    """Change the rows of a Parquet file: its begin stays, and what tells of its columns."""
    content = bytearray(file.read_bytes())
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for place in range(end // 8, end, 64):
        content[place] ^= 0xFF
    file.write_bytes(content)
