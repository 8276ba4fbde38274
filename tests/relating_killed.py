"""Relates the minutes of a store, and dies at the end of a statement that it writes.

python relating_killed.py STORE ARCHIVE STATEMENT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from framewalk.engine import Store, load_plan
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.remaking import relate


def main(path: Path, logs: Path, statement: int) -> None:
    count = 0

    def die(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event == "return" and frame.f_code.co_name in {"run", "insert"}:
            count += 1
            if count >= statement:
                os.kill(os.getpid(), signal.SIGKILL)

    plan = load_plan(Path(__file__).with_name("few.oal"))
    with Store(path, plan) as store, Archive(store, logs, ArchiveOptions(Mode.HTTP)) as archive:
        sys.setprofile(die)
        relate(store, archive)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
