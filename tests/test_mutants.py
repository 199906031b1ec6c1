"""Proof that the conformance kit has teeth: wrong backends fail the rules they break, right but unusual ones pass.

Each test is a pytest process of its own, so that what a mutant leaves behind, or hangs in, stays there.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow  # some minutes on a busy machine

if not hasattr(select, "epoll"):
    pytest.skip("the mutants derive from our backends for Linux", allow_module_level=True)

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "mutants.md"

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(TESTS)
    mutants = import_module("mutants")
    WRONG = {family: dict(mutants.wrong_in(family)) for family in mutants.FAMILIES}
    UNUSUAL = [*mutants.unusual()]

REPRESENTATIVE = {
    *("REG-01", "REG-10", "REG-13", "REG-15", "INT-01", "INT-04", "INT-10"),
    *("LVL-01", "LVL-02", "LVL-03", "LVL-06", "EDG-01", "EDG-03", "EDG-05", "EDG-07", "EDG-15", "EDG-16"),
    *("ONE-01", "ONE-02", "ONE-03", "ONE-04", "ONE-07", "ONE-09", "MRG-01", "MRG-02", "CAP-01", "CAP-02", "CAP-04"),
    *("EVT-01", "EVT-02", "EVT-04", "EVT-10", "EVT-13", "EVT-16", "SPU-01", "SPU-02", "SRC-01"),
    *("TMO-02", "TMO-03", "TMO-09", "WAK-01", "WAK-02", "WAK-03", "WAK-07", "CLS-03", "FRK-01", "THR-01"),
    *("SRC-03", "SRC-04", "UDP-01", "UDP-03"),
}
"""Of each family what an unusual backend is most likely to be taken for wrong by."""


Verdicts: TypeAlias = dict[tuple[str, str], list[str]]
"""By mutant and rule what its tests said: nothing, or why they failed."""


def run_trial(folder: Path, classes: str, *args: str, scale: str, limit: float) -> Verdicts:
    """Run what ``mutants.trial`` makes, at most *limit* seconds, with waits scaled by *scale*."""
    module = folder / "test_trial.py"
    module.write_text(f"from mutants import trial\n\nglobals().update(trial.{classes})\n")
    report = folder / "report.xml"
    # Most of the time is spent waiting, so four workers are not too many for two cores.
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "mutants.trial",
        "-p",
        "no:cacheprovider",
        "-n4",
        f"--junitxml={report}",
    ]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-W", "error", "--strict-config", "--strict-markers", *args, module],
        env={**outside, "PYTHONPATH": path, "POLLING_TIME_SCALE": scale},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
    )
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), done.stdout + done.stderr
    verdicts: Verdicts = {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = re.match(r"test_([A-Z]{3})_(\d\d)_", case.get("name", ""))
        if found and case.find("skipped") is None:
            mutant = case.get("classname", "").partition(".Test")[2]
            problems = [problem.text or "?" for problem in case if problem.tag in ("failure", "error")]
            verdicts.setdefault((mutant, f"{found[1]}-{found[2]}"), []).extend(problems)
    return verdicts


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.mark.parametrize("family", WRONG)
def test_wrong_backends_fail_the_rules_they_break(folder: Path, family: str) -> None:
    # Waits for what never comes are short; 6 s of hanging are enough, too.
    verdicts = run_trial(folder, f"of_family({family!r})", "--dist=loadscope", scale="0.2", limit=170)
    complaints: list[str] = []
    for wrong, breaks in WRONG[family].items():
        for rule in breaks:
            said = verdicts.get((wrong.__name__, rule))
            failure = re.compile(
                rf"(?ms)^E +\S+RuleFailure: {rule} does not hold on .*^E +expected: .+^E +observed: .+"
            )
            if not said:
                complaints.append(f"{wrong.__name__} passes {rule}")
            elif not failure.search(said[0]):
                complaints.append(f"{wrong.__name__} fails {rule}, but the message does not suffice: {said[0][-500:]}")
    for right in {mutants.right_for(wrong) for wrong in WRONG[family]}:
        for (name, rule), said in verdicts.items():
            if name == right.__name__ and said:
                complaints.append(f"{name}, which is right, fails {rule}: {said[0][-500:]}")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", [unusual.__name__ for unusual in UNUSUAL])
def test_what_is_right_but_unusual_passes(folder: Path, name: str) -> None:
    expect_no_failure(
        run_trial(folder, f"of_unusual({name!r}, {sorted(REPRESENTATIVE)})", "-k", KINDS, scale="1", limit=170)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [unusual.__name__ for unusual in UNUSUAL])
def test_what_is_right_but_unusual_passes_everything(folder: Path, name: str) -> None:
    expect_no_failure(run_trial(folder, f"of_unusual({name!r}, None)", scale="1", limit=900))


KINDS = "not tcp and not pipe and not unix or net-tcp"
"""Of the kinds of sources ``net-tcp`` alone, and what knows no kinds."""


def expect_no_failure(verdicts: Verdicts) -> None:
    failures = [f"{rule}: {message}" for (_, rule), said in verdicts.items() for message in said]
    assert not failures, "\n".join(failures)
    assert len(verdicts) > 40, "hardly a rule was tested"


def test_there_are_enough_of_both() -> None:
    assert sum(map(len, WRONG.values())) >= 50
    assert len(UNUSUAL) >= 5


def test_the_page_lists_them_all() -> None:
    page = subprocess.run(
        [sys.executable, "-m", "mutants"], cwd=TESTS, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/mutants.md is not what tests/mutants says: in tests/, run python -m mutants > ../docs/mutants.md"
    )
