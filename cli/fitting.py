"""How a table is made to fit a terminal: names on several lines, and long texts shortened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Sequence

# A text is not cut to less than this: what is left of it would tell nothing.
_LEAST_TEXT: Final = 12


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it is written: its name, its values as text, whether they are numbers."""

    name: str
    cells: Sequence[str]
    is_number: bool

    @property
    def width(self) -> int:
        """Its width in cells of a terminal, as it is."""
        return max(map(text_width, (self.name, *self.cells)))


@dataclass(frozen=True, slots=True)
class Fitted:
    """Columns within a width; `is_cut` where a value is not whole."""

    columns: Sequence[Column]
    is_cut: bool


def fitted(columns: Sequence[Column], width: int, mark: str) -> Fitted | None:
    """Return columns that take at most `width` cells; None if that cannot be.

    Names are broken at their underscores first, then the longest texts are shortened, all to the
    same length, with `mark` where something is left out. Numbers and times are never cut.
    """
    broken = [_broken(column) for column in columns]
    widths = [column.width for column in broken]
    least = [
        max(text_width(column.name), _LEAST_TEXT) if _can_be_cut(column) else size
        for column, size in zip(broken, widths, strict=True)
    ]
    if sum(map(min, widths, least)) > width:
        return None
    longest = min(max(widths), width)
    while sum(_kept(widths, least, longest)) > width:
        longest -= 1
    kept = _kept(widths, least, longest)
    return Fitted(
        [_cut(column, size, mark) for column, size in zip(broken, kept, strict=True)],
        kept != widths,
    )


def text_width(text: str) -> int:
    """Return how many cells of a terminal the longest line of a text takes."""
    return max(map(cell_len, text.split("\n")))


def _kept(widths: Sequence[int], least: Sequence[int], longest: int) -> list[int]:
    return [min(size, max(longest, low)) for size, low in zip(widths, least, strict=True)]


def _broken(column: Column) -> Column:
    """Return a column whose name is no wider than its values need, as far as it has underscores."""
    room = max(map(text_width, column.cells), default=0)
    lines: list[str] = []
    for word in column.name.replace("_", "_\0").split("\0"):
        if lines and cell_len(lines[-1] + word) <= room:
            lines[-1] += word
        else:
            lines.append(word)
    return Column("\n".join(lines), column.cells, column.is_number)


def _can_be_cut(column: Column) -> bool:
    # What has neither letters nor signs in it is a time, an address or a list of numbers.
    return not column.is_number and any(
        character.isalpha() for cell in column.cells for character in cell
    )


def _cut(column: Column, width: int, mark: str) -> Column:
    if column.width <= width:
        return column
    cells = [
        "\n".join(_shortened(line, width, mark) for line in cell.split("\n"))
        for cell in column.cells
    ]
    return Column(column.name, cells, column.is_number)


def _shortened(line: str, width: int, mark: str) -> str:
    """Leave out the end of a sentence, and the middle of a name: it is told by both its ends."""
    if cell_len(line) <= width:
        return line
    room = width - cell_len(mark)
    if " " in line:
        return set_cell_size(line, room).rstrip() + mark
    tail = room // 2
    end = line[-tail:] if tail else ""
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(line, room - tail) + mark + end
