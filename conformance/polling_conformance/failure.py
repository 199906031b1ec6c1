"""What a rule's test fails with: a message that suffices without the test's source."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from polling_conformance.durations import TIME_SCALE

__all__ = ["RuleFailure", "UnexpectedPass", "blame", "explain", "rule_of"]

_SUITE: Final = Path(__file__).parent / "suite"


class RuleFailure(AssertionError):
    """A rule does not hold. The message says which, and is meant for the backend's author.

    Attributes:
        expectation: What the test expected.
        observation: What it saw instead.
        unasked: Whether that is an event more than was expected, which may be a spurious one.
        seed: What a test that draws at random begins with to draw the same again.
        script: A program that shows the failure, where the test has one to give.
    """

    def __init__(
        self,
        message: str,
        expectation: str,
        observation: str,
        *,
        seed: str | None = None,
        script: str | None = None,
    ) -> None:
        super().__init__(message)
        self.expectation = expectation
        self.observation = observation
        self.unasked = False
        self.seed = seed
        self.script = script


class UnexpectedPass(Exception):
    """A rule that was expected to fail does not."""


def rule_of(test_name: str) -> str | None:
    """Give the rule that a test's name links to: ``"EDG-05"`` for ``test_EDG_05_...``, ``None`` for smoke."""
    found = re.match(r"test_([A-Z]{3})_(\d\d)_", test_name)
    return f"{found[1]}-{found[2]}" if found else None


def explain(
    test_name: str,
    backend: str,
    expectation: str,
    observation: str,
    *,
    seed: str | None = None,
    script: str | None = None,
) -> RuleFailure:
    """Write the failure of a test: rule, expectation, observation, and what the catalogue says of the rule.

    For *seed* and *script* see ``RuleFailure``.
    """
    rule = rule_of(test_name)
    lines = [f"{rule or test_name} does not hold on {backend}"]
    try:
        catalogue = import_module("polling_conformance.rules").RULES
    except ModuleNotFoundError:
        catalogue = {}
    known = catalogue.get(rule)
    if known is not None:
        lines.append(f"rule:     {known.sentence}")
    lines += [f"expected: {expectation}", f"observed: {observation}"]
    if known is not None:
        lines.append(f"intent:   {known.intent}")
        lines += [f"check:    {step}" for step in known.checklist]
    if TIME_SCALE != 1:
        lines.append(f"scale:    all waits are {TIME_SCALE:g} times as long as usual, by POLLING_TIME_SCALE")
    if seed is not None:
        lines.append(f"seed:     {seed}")
    if script is not None:
        lines += ["script:", "", script]
    return RuleFailure("\n".join(lines), expectation, observation, seed=seed, script=script)


def blame(raised: pytest.ExceptionInfo[BaseException]) -> tuple[str, str]:
    """Say of an error that no rule's test has explained what was expected and what was observed instead."""
    rules = [entry for entry in raised.traceback if Path(entry.path).is_relative_to(_SUITE)]
    statement = " ".join(str((rules or raised.traceback)[-1].statement).split())
    inner = raised.traceback[-1]
    asserted = isinstance(raised.value, AssertionError | pytest.fail.Exception)
    return (
        statement if asserted else f"no error in: {statement}",
        f"{raised.exconly()}\nat {inner.path}, line {inner.lineno + 1}, in {inner.name}",
    )
