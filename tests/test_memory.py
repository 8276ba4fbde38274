"""The memory of a replay does not grow with the length of the capture."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "memory.py"

# Measured: 1.02. A capture that is read as a whole shows as 2.6.
GROWTH_LIMIT = 1.15

REQUESTS_PER_SECOND = 150
COMMIT_LOGS = 100_000


def test_a_capture_four_times_as_long_needs_no_more_memory(tmp_path: Path) -> None:
    memory = benchmark()
    measured = [
        memory.measure(tmp_path, duration_s, REQUESTS_PER_SECOND, COMMIT_LOGS)
        for duration_s in (90, 360)
    ]
    assert measured[1].logs > 3 * measured[0].logs > 1_000_000
    assert memory.growth(measured) < GROWTH_LIMIT


def benchmark() -> ModuleType:
    """Load the benchmark, which is a script and in no package."""
    spec = spec_from_file_location("memory", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
