"""What all trials have in common, done once: imports, and what pytest does at its first run."""

from __future__ import annotations

import gc
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO

import pytest

import polling_conformance.rules  # noqa: F401  (a failure's message needs it)

from . import FAMILIES, suite  # noqa: F401  (the kit, and who runs it)

for family in FAMILIES:
    import_module(f"{__package__}.{family}")
with redirect_stdout(StringIO()):
    pytest.main(["--version"])  # has it import its parts
gc.freeze()  # so that the forks collect their own garbage only
