"""A plugin for pytest: the tests do not run unless the mutant is what Python loads.

An editable installation maps to a repository. With a wrong one every mutant would survive. A test
that fails is enough: no time is spent on a shorter example.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import Phase, settings

NOT_LOADED = 70
# Python ends with 1 too where it cannot begin: this is said only by tests that ran.
KILLED = 71
# The module that is mutated, and what it has to say of itself.
MODULE = "FRAMEWALK_MUTATED_MODULE"
MUTANT = "FRAMEWALK_MUTANT"


settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], database=None)
settings.load_profile("mutation")


def pytest_configure(config: pytest.Config) -> None:
    if MODULE not in os.environ:
        return
    try:
        module = import_module(os.environ[MODULE])
    except Exception as error:  # noqa: BLE001 - a mutant may raise anything
        pytest.exit(f"the mutant cannot be imported: {error!r}", KILLED)
    is_inside = Path(str(module.__file__)).resolve().is_relative_to(config.rootpath.resolve())
    if not is_inside or getattr(module, "MUTANT", "") != os.environ[MUTANT]:
        pytest.exit(f"{module.__file__} is not the mutant", NOT_LOADED)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus != pytest.ExitCode.OK:
        session.exitstatus = KILLED
