"""A fault in the engine for messages that a pattern marks, in whichever process works on them."""

from __future__ import annotations

import os
from pathlib import Path

# An unknown field, so that a message that is not deadly to this engine is as it was.
MARK = b"\xc2\x3e\x0cdeadly4tests"

FAULTS = {
    "raises": "raise RuntimeError('deadly')",
    "panics": "raise BaseException('deadly')",
    "aborts": "os.abort()",
    # As a system without memory would end it: before that, a probe is ended for what it takes.
    "memory": """
        held = []
        while len(held) < 30:
            held.append(b"x" * 100_000_000)
        os.kill(os.getpid(), 9)""",
    "never ends": """
        while True:
            pass""",
}

# A replay and a server are guarded by the same code: each is tried with one of them, these with a
# server, the others with a replay; `make pytest-long` tries the rest.
LONG_FAULTS = ("panics", "memory", "never ends")

# Python runs it at every start.
_AT_START = """
import os
import sys

if "replay" in sys.orig_argv:
    from framewalk.cli import worker

    # Nobody wants to wait for two minutes.
    worker._LONGEST_CPU_S = 10

names = {{"framewalk.server.engine.process", "framewalk.engine.runs.probe", "replay"}}
if names & set(sys.orig_argv):
    from framewalk.engine.stages import pipeline

    _decode = pipeline.decode

    def decode(messages):
        if any({mark!r} in one for one in messages["message"].to_pylist()):
            {fault}
        return _decode(messages)

    pipeline.decode = decode
"""


def environment(folder: Path, fault: str) -> dict[str, str]:
    """Return what a server, or a replay, is started with to have this fault; makes `folder`."""
    folder.mkdir()
    text = _AT_START.format(mark=MARK, fault=FAULTS[fault].replace("\n", "\n    "))
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
