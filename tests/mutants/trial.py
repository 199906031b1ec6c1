"""What a trial runs, in a pytest process of its own: the rules that a mutant breaks, each until its first failure.

As a plug-in (``-p mutants.trial``) it ends the run of a rule on a mutant with the first test that fails.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

import pytest

from polling import Backend, Poll
from polling_conformance import BackendConformance
from polling_conformance.harness import rule_of

from . import Front, Wrong, right_for, wrong_in

__all__ = ["of_family", "of_unusual"]

_failed: set[tuple[str, str | None]] = set()


def of_family(family: str) -> dict[str, type]:
    """Make the test classes for a module of wrong ones, and for what is right in their place."""
    wrong_ones = dict(wrong_in(family))
    rules: dict[type[Backend], set[str]] = {}
    for wrong, breaks in wrong_ones.items():
        rules.setdefault(right_for(wrong), set()).update(breaks)
    # What is right comes first, undisturbed by what the others leave behind.
    return {f"Test{mutant.__name__}": _conformance(mutant, of) for mutant, of in [*rules.items(), *wrong_ones.items()]}


def of_unusual(name: str, rules: Collection[str] | None) -> dict[str, type]:
    """Make the test class for something right: for these rules, or for all."""
    return {f"Test{name}": _conformance(vars(import_module("mutants.unusual"))[name], rules)}


def _conformance(mutant: Wrong, rules: Collection[str] | None) -> type:
    """Derive from the suite, leaving out the tests of all other rules: None is no test."""
    tests = {name: rule_of(name) for name in dir(BackendConformance) if name.startswith("test_")}
    untested = set(rules or ()) - {*tests.values()}
    if untested:
        raise ValueError(f"{mutant.__name__} is for rules without a test: {sorted(untested)}")
    members: dict[str, object] = {} if rules is None else {n: None for n, rule in tests.items() if rule not in rules}
    if issubclass(mutant, Front):
        front = mutant

        def new_poll(self: object) -> Poll[object]:
            return front(front.on)

        members.update(backend=front.on, new_poll=new_poll)
    else:
        members.update(backend=mutant)
    return type(f"Test{mutant.__name__}", (BackendConformance,), members)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if _key(item.nodeid) in _failed:
        pytest.skip("this rule has failed already")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.failed:
        _failed.add(_key(report.nodeid))


def _key(nodeid: str) -> tuple[str, str | None]:
    _, trial, test = nodeid.split("::")
    return trial, rule_of(test)
