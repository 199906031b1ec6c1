"""Random walks over the whole interface, judged by a model of the contract: a search, so it is slow.

Not part of the kit's verdict yet: the model still has to learn a few of the allowances that the contract makes.
"""

from __future__ import annotations

import pytest

import polling
from polling_conformance.suite.machine import Machines

pytestmark = pytest.mark.slow

for _name in polling.available_backends():
    globals()[f"Test{_name.title()}"] = type(f"Test{_name.title()}", (Machines,), {"backend": _name})
