"""Proof that the conformance kit has teeth: wrong backends fail the rules they break, right but unusual ones pass.

Each trial is a process of its own, so that what a mutant leaves behind, or hangs in, stays there.
"""

from __future__ import annotations

import re
import select
import subprocess
import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path

import pytest

from polling_backends.epoll import EpollBackend
from polling_backends.iocp import IocpBackend
from polling_backends.poll import PollBackend
from polling_conformance.ends import has_ipv6
from polling_conformance.failure import rule_of
from polling_conformance.rules import RULES

if not hasattr(select, "epoll"):
    pytest.skip("the mutants derive from our backends for Linux", allow_module_level=True)

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "mutants.md"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TESTS)
    mutants = import_module("mutants")
    trial = import_module("mutants.trial")
    WRONG = {wrong: {*breaks} for family in mutants.FAMILIES for wrong, breaks in mutants.wrong_in(family)}
    UNUSUAL = [*mutants.unusual()]

REPRESENTATIVE = {
    *("REG-01", "REG-10", "REG-13", "REG-15", "INT-01", "INT-04", "INT-10"),
    *("LVL-01", "LVL-02", "LVL-03", "LVL-06", "EDG-01", "EDG-03", "EDG-05", "EDG-07", "EDG-15", "EDG-16"),
    *("ONE-01", "ONE-02", "ONE-03", "ONE-04", "ONE-07", "ONE-09", "MRG-01", "MRG-02", "CAP-01", "CAP-02", "CAP-04"),
    *("EVT-01", "EVT-02", "EVT-04", "EVT-10", "EVT-13", "EVT-16", "SPU-01", "SRC-01"),
    *("TMO-02", "TMO-03", "TMO-09", "WAK-01", "WAK-02", "WAK-03", "WAK-07", "CLS-03", "FRK-01", "THR-01"),
    *("SRC-03", "SRC-04", "UDP-01", "UDP-03"),
}
"""Of each family what an unusual backend is most likely to be taken for wrong by."""

ONE_KIND = r"(?!.*(tcp|pipe|unix)).*|.*net-tcp.*"
"""The tests with one kind of source, of those that are repeated over several, and all others."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes of the trials find the mutants."""
    monkeypatch.syspath_prepend(TESTS)


# The long ones first, so that no worker is left with one at the end.
@pytest.mark.parametrize("right", UNUSUAL, ids=[right.__name__ for right in UNUSUAL])
def test_what_is_right_but_unusual_passes(tmp_path: Path, right: type) -> None:
    # Nearly all of their time is spent watching that nothing comes.
    expect_no_failure(
        trial.hold(trial.address_of(right), folder=tmp_path, rules=REPRESENTATIVE, tests=ONE_KIND, scale=0.5, limit=170)
    )


@pytest.mark.parametrize("wrong", WRONG, ids=[wrong.__name__ for wrong in WRONG])
def test_a_wrong_backend_fails_the_rules_it_breaks(tmp_path_factory: pytest.TempPathFactory, wrong: type) -> None:
    if "SRC-06" in WRONG[wrong] and not has_ipv6():
        pytest.skip("this machine has no IPv6, and the rule is not tried on it")
    problems: dict[str | None, tuple[str, str]] = {}
    # Some mistakes show when one thread comes before another, and a busy machine may turn that round.
    for _ in range(3):
        # Nothing that comes is late, so waits for what never comes can be short.
        said = trial.hold(
            trial.address_of(wrong),
            folder=tmp_path_factory.mktemp("wrong"),
            rules=WRONG[wrong] - problems.keys(),
            scale=trial.SHORT,
            limit=60,
        )
        for test, problem in said:
            if problem is not None:
                problems.setdefault(rule_of(test), (test, problem))
        if WRONG[wrong] <= problems.keys():
            break
    for rule in WRONG[wrong]:
        assert rule in problems, f"it passes {rule}"
        test, problem = problems[rule]
        assert re.search(rf"(?ms)^\S+RuleFailure: {rule} does not hold on .*^expected: .+^observed: .+", problem), (
            f"it fails {test}, but the message does not suffice:\n{problem}"
        )


def test_what_the_wrong_ones_derive_from_is_right() -> None:
    # A test that fails on a mutant must pass on what the mutant would be but for its mistake: test_conformance.py has
    # the whole suite on these.
    assert {mutants.right_for(wrong) for wrong in WRONG} <= {EpollBackend, PollBackend, IocpBackend, mutants.OnFreeBSD}


@pytest.mark.slow
@pytest.mark.parametrize("right", UNUSUAL, ids=[right.__name__ for right in UNUSUAL])
def test_what_is_right_but_unusual_passes_everything(tmp_path: Path, right: type) -> None:
    expect_no_failure(trial.hold(trial.address_of(right), folder=tmp_path, scale=1, limit=900))


def expect_no_failure(said: Collection[tuple[str, str | None]]) -> None:
    failures = [f"{test}: {problem}" for test, problem in said if problem is not None]
    assert not failures, "\n".join(failures)
    assert len({rule_of(test) for test, _ in said}) > 40, "hardly a rule was tested"


def test_no_rule_is_without_one_that_breaks_it() -> None:
    tested = {rule.id for rule in RULES.values() if not (rule.planned or rule.declined or rule.untested)}
    broken = {rule for breaks in WRONG.values() for rule in breaks}
    assert not (missing := sorted(tested - broken)), f"nothing shows that the tests of these can fail: {missing}"


def test_there_are_enough_of_both() -> None:
    assert len(WRONG) >= 50
    assert len(UNUSUAL) >= 5


def test_the_page_lists_them_all() -> None:
    page = subprocess.run(
        [sys.executable, "-m", "mutants"], cwd=TESTS, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/mutants.md is not what tests/mutants says: in tests/, run python -m mutants > ../docs/mutants.md"
    )
