"""Files that are not as they were written."""

from __future__ import annotations

from pathlib import Path


def spoil(file: Path) -> None:
    """Change the inside of a file: what is at its begin and its end stays."""
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 8, len(content) * 3 // 4, 64):
        content[place] ^= 0xFF
    file.write_bytes(content)
