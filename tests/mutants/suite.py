"""The part of a trial that imports the kit: the test class for a mutant, and pytest's run of it."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import import_module
from pathlib import Path

import pytest

from polling import Backend, Poll
from polling_conformance import BackendConformance
from polling_conformance.failure import rule_of

from . import PARTS, Front, Wrong, stands_on
from .trial import Said

__all__ = ["run", "suite_of"]

# Only plain failures are told: a rule's failure needs no rewritten assert, and no source around it.
_OPTIONS = ["-p", "no:cacheprovider", "--assert=plain", "--tb=native", "-W", "error"]
_OPTIONS += ["--strict-config", "--strict-markers", "-c"]


def run(backend: str, rules: Collection[str] | None, tests: str) -> list[Said]:
    """Do what ``trial.hold`` says, in this process and folder."""
    module, ini = Path("test_trial.py"), Path("pytest.ini")
    rules = None if rules is None else sorted(rules)
    module.write_text(f"from mutants.suite import suite_of\n\nTestTrial = suite_of({backend!r}, {rules})\n")
    ini.write_text("[pytest]\n")
    watcher = _Watcher(tests)
    status = pytest.main([*_OPTIONS, str(ini), str(module)], plugins=[watcher])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ends with {status!r}")
    return watcher.said


def suite_of(backend: str, rules: Collection[str] | None) -> type:
    """Derive from the suite, leaving out the tests of all other rules: None is no test."""
    module, _, name = backend.partition(":")
    found: Wrong = getattr(import_module(module), name)
    tests = {name: rule_of(name) for name in dir(BackendConformance) if name.startswith("test_")}
    untested = set(rules or ()) - {*tests.values()}
    if untested:
        raise ValueError(f"{backend} is for rules without a test: {sorted(untested)}")
    members: dict[str, object] = {} if rules is None else {n: None for n, rule in tests.items() if rule not in rules}
    if issubclass(found, Front):
        front = found

        def new_poll(self: object) -> Poll[object]:
            return front(front.on)

        members.update(backend=front.on, new_poll=new_poll)
    elif issubclass(found, Backend):
        members.update(backend=found)
    else:
        members.update({name: found for name, part in PARTS.items() if issubclass(found, part)})
        members.update(backend=stands_on(found))
    return type("TestTrial", (BackendConformance,), members)


class _Watcher:
    """A plug-in that chooses the tests, ends those of a rule with the first that fails, and takes note of all."""

    def __init__(self, wanted: str) -> None:
        self.said: list[Said] = []
        self._wanted = wanted
        self._failed: set[str | None] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if re.fullmatch(self._wanted, item.name)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        return True if rule_of(item.name) in self._failed else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            self._failed.add(rule_of(name))
            self.said.append(Said(name, report.longreprtext))
        elif report.when == "call" and report.passed:
            self.said.append(Said(name, None))
