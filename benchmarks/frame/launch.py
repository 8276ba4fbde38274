"""Start a command from a small process and tell what it used.

    python -I benchmarks/frame/launch.py RESULT COMMAND...

Linux counts the memory of the process that starts another as the other's own until it has its
program; the benchmarks hold too much for that.
"""

import json
import os
import resource  # noqa: F401 - os.wait4 needs it
import subprocess
import sys
import time

started_s = time.perf_counter()
with subprocess.Popen(sys.argv[2:]) as process:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
used = {
    "cpu_s": usage.ru_utime + usage.ru_stime,
    "elapsed_s": time.perf_counter() - started_s,
    # KiB on Linux, bytes on macOS.
    "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    "exit_code": process.returncode,
}
with open(sys.argv[1], "w", encoding="ascii") as result:  # noqa: PTH123 - pathlib takes 10 ms
    json.dump(used, result)
