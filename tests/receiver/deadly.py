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
names.add("framewalk.engine.spreading.nursery")
if names & set(sys.orig_argv):
    from framewalk.engine.stages import pipeline

    _decode = pipeline.decode

    def decode(messages):
        if any({mark!r} in one for one in messages["message"].to_pylist()):
            {fault}
        return _decode(messages)

    pipeline.decode = decode
"""


# Where logs are written, and not where messages are read.
_ARCHIVING = """
import os
import sys

if {{"framewalk.engine.runs.probe", "replay"}} & set(sys.orig_argv):
    from framewalk.engine.archive import archive

    _tables_of = archive.tables_of

    def tables_of(kind, parts, *others):
        for part in parts:
            if kind == "http" and {path!r} in part.frames[kind]["path"].to_list():
                os.abort()
        return _tables_of(kind, parts, *others)

    archive.tables_of = tables_of
"""
DEADLY_PATH = "/deadly4tests"


# What an engine does beside its commits it does at once, and ends in it, once for each of the given
# places, in their order: when a function returns for so many times in one run of the job. A line is
# written for each death.
_UPKEEP = """
import os
import sys

if "framewalk.server.engine.process" in sys.orig_argv:
    from framewalk.engine.archive.archive import Archive
    from framewalk.server.engine import upkeep

    upkeep._RELATE_EVERY_S = upkeep._MERGE_EVERY_S = 0.2
    owner = Archive if {job!r} == "_sample" else upkeep.Upkeep
    job = getattr(owner, {job!r})

    def dying(self, *given):
        with open({deaths!r}, "a+") as deaths:
            deaths.seek(0)
            count = len(deaths.readlines())
        left = [[name, times] for name, times in {places!r}[count:][:1]]

        def die(frame, event, _argument):
            if event != "return" or not left or frame.f_code.co_name != left[0][0]:
                return
            left[0][1] -= 1
            if not left[0][1]:
                with open({deaths!r}, "a") as deaths:
                    deaths.write("died\\n")
                os.kill(os.getpid(), 9)

        sys.setprofile(die)
        try:
            return job(self, *given)
        finally:
            sys.setprofile(None)

    setattr(owner, {job!r}, dying)
"""


def upkeep_environment(
    folder: Path, deaths: Path, job: str, places: list[tuple[str, int]]
) -> dict[str, str]:
    """Return what a server is started with to relate and merge at once, and to end in one job.

    That is `_relate` of its upkeep, or `_sample` of its archive.
    """
    return started_with_python(folder, _UPKEEP.format(deaths=str(deaths), job=job, places=places))


# Hours are a moment, and each of them makes an engine, or a follower, too large.
_OUTGROWN = """
import sys

if {"framewalk.server.engine.process", "query-server"} & set(sys.orig_argv):
    from framewalk.server.engine import memory

    memory._PERIOD_S, memory._MUCH_BYTES = 0.1, -(2**40)
"""


def outgrown_environment(folder: Path) -> dict[str, str]:
    """Return what a server or a follower is started with to outgrow its store again and again."""
    return started_with_python(folder, _OUTGROWN)


def archiving_environment(folder: Path) -> dict[str, str]:
    """Return what a replay is started with to end where it archives DEADLY_PATH."""
    return started_with_python(folder, _ARCHIVING.format(path=DEADLY_PATH))


def environment(folder: Path, fault: str) -> dict[str, str]:
    """Return what a server, or a replay, is started with to have this fault; makes `folder`."""
    return started_with_python(
        folder, _AT_START.format(mark=MARK, fault=FAULTS[fault].replace("\n", "\n    "))
    )


def started_with_python(folder: Path, text: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
