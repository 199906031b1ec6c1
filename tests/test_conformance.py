"""The conformance suite on every backend of ours that can run here: ``TestEpollBackend``, ``TestPollBackend``, ...

And on kqueue where there is none, over a model of its kernel. FreeBSD's is put to every rule; of macOS's, and of one
without EVFILT_USER, only what depends on how they differ is tried each time, and the rest, with the machines, with the
slow tests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from polling import Backend, available_backends
from polling_conformance import BackendConformance
from polling_conformance.failure import rule_of

DIFFERENT_ON_MACOS = {
    *("REG-05", "REG-08", "REG-09", "REG-11", "REG-14", "INT-02", "INT-04", "LVL-06", "ONE-01", "ONE-02"),
    *("EVT-06", "EVT-15", "EVT-16", "EVT-17", "MRG-01", "MRG-02", "WAK-01", "WAK-02", "WAK-03", "FRK-01", "FRK-02"),
    *("SRC-01", "SRC-02", "SRC-03", "SRC-04"),
}
"""What is closed, pipes, terminals, devices, EVFILT_USER."""


RUNG_FOR = {"WAK-01", "WAK-02", "WAK-03", "WAK-04", "WAK-06", "WAK-07", "WAK-08", "WAK-10", "EVT-16", "GCL-04"}
"""What a bell is rung for, and what becomes of its descriptors."""


def conformance(backend: type[Backend], of: Callable[[str], bool] = lambda rule: True) -> type:
    """Derive from the suite for the rules that *of* accepts; tests of no rule it knows by their names."""
    tests = {name: rule_of(name) or name for name in dir(BackendConformance) if name.startswith("test_")}
    left_out = {name: None for name, rule in tests.items() if not of(rule)}  # None is no test
    return type(
        f"Test{backend.__name__}", (BackendConformance,), {"__module__": __name__, "backend": backend, **left_out}
    )


_ours = [backend for backend in available_backends().values() if backend.__module__.startswith("polling_backends.")]
if not _ours:
    raise RuntimeError("no backend of ours can run here, so nothing would be tested")

for _backend in _ours:
    globals()[f"Test{_backend.__name__}"] = conformance(_backend)

if sys.platform == "linux":
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        kqueue = import_module("kqueue_backends")
    TestKqueueOnFreeBSD = conformance(kqueue.OnFreeBSD)
    TestKqueueOnMacOS = conformance(kqueue.OnMacOS, DIFFERENT_ON_MACOS.__contains__)
    TestKqueueWithoutUserEvents = conformance(kqueue.WithoutUserEvents, RUNG_FOR.__contains__)
    TestAllOfKqueueOnMacOS = pytest.mark.slow(conformance(kqueue.OnMacOS))
    # The model watches the doorbell by a descriptor of its own, far away, which no kqueue has.
    TestAllOfKqueueWithoutUserEvents = pytest.mark.slow(
        conformance(kqueue.WithoutUserEvents, lambda rule: rule != "REG-23")
    )
