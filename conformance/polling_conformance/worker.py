"""The child of the command: runs the suite on one backend, in a process that may hang or crash.

A backend under test can block for ever where no signal handler runs, or take the interpreter down with it. So
each has a process of its own, and its parent (``runner``) learns all it knows from what this one says, a
line of JSON at a time, on what was its standard output. What backend and tests print goes elsewhere.

    child   {"ready": {...}}             the backend can be made; or {"refused": "why it cannot"}
    parent  {"rows": [...], ...}         what to run, in which order; or the end of the file: nothing
    child   {"collected": {row: n}}      how many tests there are
    child   {"start": [row, test]}       before each test; silence after it means that this one hangs
    child   {"outcome": {...}}           after it
    child   {"end": "..."}               all is done; the text says what pytest could not collect or run

Nobody's pytest configuration is read: the suite is collected from a file in an empty directory, with its own
ini file, no conftest, and no plug-in but those of pytest itself.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Final, TextIO

import pytest

import polling
from polling import Backend
from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.failure import RuleFailure, blame, rule_of
from polling_conformance.harness import problem_of
from polling_conformance.suite import BackendConformance

__all__ = ["SMOKE", "Description", "Failure", "Outcome", "Refusal", "main", "open_target", "row_of", "tested_rows"]

SMOKE: Final = "smoke"
"""The row of the tests that must pass before any rule is worth trying."""

_KIT: Final = Path(__file__).parent
_LIBRARY: Final = Path(polling.__file__).parent

_INI: Final = f"""\
[pytest]
addopts = --strict-config --strict-markers
filterwarnings = error
faulthandler_timeout = {3.5 * SIGNAL_WAIT:g}
"""
# The harness ends a hanging test after three waits, if Python can run. If not, the traceback of all threads is
# written after three and a half, and after four the parent ends the process.


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a test did not pass.

    Attributes:
        test: Its name, with parameters.
        expectation: What was expected.
        observation: What was seen instead.
        seed: What a test that draws at random is begun with to draw the same again.
        script: A program that shows the failure, where the test itself gave one.
        details: Tracebacks and captured output.
    """

    test: str
    expectation: str
    observation: str
    seed: str | None = None
    script: str | None = None
    details: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test. It passed if nothing failed and it was not skipped."""

    row: str
    test: str
    seconds: float
    failures: Sequence[Failure] = ()
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What there is to say of a backend before it is tested."""

    name: str
    capabilities: Sequence[str]
    known_failures: Mapping[str, str]
    rows: Sequence[str]
    is_suite: bool
    """Whether the target is a test class of the author's, and not a backend."""


class Refusal(Exception):
    """What was asked for cannot be tested. The message says why, to whom asked."""


def row_of(test_name: str) -> str:
    """Give the row of the matrix that a test belongs to: its rule, or its layer, such as ``smoke``."""
    return rule_of(test_name) or test_name.split("_")[1]


def tested_rows(suite: type) -> list[str]:
    """Give the rows that a class has tests for."""
    names = [name for name in dir(suite) if name.startswith("test_") and callable(getattr(suite, name))]
    return list(dict.fromkeys(map(row_of, names)))


# -- what is tested --------------------------------------------------------------------------------------


def open_target(target: str, known: Collection[str] = ()) -> tuple[type[BackendConformance], Description]:
    """Make the test class for what the user named, and see that its backend can be made.

    Args:
        target: A registered name, or ``module:Class``.
        known: The rules that it is known to break.

    Raises:
        Refusal: The user's argument is to blame.
    """
    module_name, colon, name = target.partition(":")
    # The parent judges by what is known. Only the machines must be told, which find whatever there is.
    attributes: dict[str, object] = {"known_failures": {}, "forgiven": frozenset(known)}
    base = BackendConformance
    if not colon:
        attributes["backend"] = target
    else:
        try:
            found = attrgetter(name)(import_module(module_name))
        except BaseException as error:  # whatever a stranger's module raises, pytest's skip and SystemExit included
            raise Refusal(f"{target}: cannot be imported: {_brief(error)}") from error
        if isinstance(found, type) and issubclass(found, BackendConformance):
            base = found
        elif isinstance(found, type) and issubclass(found, Backend):
            attributes["backend"] = found
        else:
            what = found.__qualname__ if isinstance(found, type) else repr(found)
            raise Refusal(f"{target}: {what} is a subclass neither of polling.Backend nor of BackendConformance")
    known = base.known_failures
    suite = type("TestBackend", (base,), attributes)
    assert issubclass(suite, BackendConformance)
    problem = problem_of(suite if "backend" in attributes else base)
    if problem is not None:
        raise Refusal(f"{target}: {problem}")
    try:
        with suite().new_poll() as poll:
            backend = poll.backend
            described = backend.name, backend.capabilities
    except BaseException as error:
        raise Refusal(f"{target}: no poll can be made on it: {_brief(error)}") from error
    capabilities = [capability.name or "" for capability in described[1]]
    rows = tested_rows(suite)
    return suite, Description(described[0], capabilities, dict(known), rows, base is not BackendConformance)


def _brief(error: BaseException) -> str:
    """Say what was raised and where, in a line."""
    said = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    strangers = [frame for frame in frames if not any(map(Path(frame.filename).is_relative_to, (_KIT, _LIBRARY)))]
    return said + (f" ({strangers[-1].filename}, line {strangers[-1].lineno})" if strangers else "")


# -- running it ------------------------------------------------------------------------------------------


@dataclass(eq=False)  # pytest 8 keeps plug-ins in a set
class _Reporter:
    """The pytest plug-in: chooses and sorts the tests, and says what becomes of them."""

    wire: TextIO
    rows: Sequence[str]
    done: Sequence[str]
    failed: set[str]
    troubles: list[str] = field(default_factory=list)
    seconds: float = 0
    failures: list[Failure] = field(default_factory=list)
    skipped: str | None = None

    def say(self, kind: str, content: object) -> None:
        self.wire.write(json.dumps({kind: content}) + "\n")
        self.wire.flush()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.troubles.append(report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.troubles.append(str(excrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self) -> tuple[str, str, str]:
        return "", "", ""  # no dots among a dying process's last words

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {row: number for number, row in enumerate(self.rows)}
        items[:] = sorted((i for i in items if row_of(i.name) in place), key=lambda item: place[row_of(item.name)])
        self.say("collected", Counter(row_of(item.name) for item in items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        row = row_of(item.name)
        # A rule that failed has its verdict. Each more of its tests might wait for what does not come, and
        # nothing is worth trying after smoke has failed.
        if item.name in self.done or self.failed & {row, SMOKE}:
            return True
        self.seconds, self.failures, self.skipped = 0, [], None
        self.say("start", [row, item.name])
        return None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.seconds += call.duration
        # Judged by what was raised and not by the report, in which a mark of the author's (xfail) has had its say.
        if call.excinfo is None:
            return report
        if not isinstance(call.excinfo.value, pytest.skip.Exception):
            self.failures.append(_failure(item, call.excinfo, report))
            return report
        raised = [entry for entry in call.excinfo.traceback if Path(entry.path).name != "outcomes.py"][-1]
        reason = str(call.excinfo.value)
        if Path(raised.path).is_relative_to(_KIT):
            self.skipped = reason
        else:
            # The suite skips where the platform or a declared capability says so. Nobody else does.
            self.failures.append(Failure(item.name, "the test is run", f"{raised.path} skips it: {reason}"))
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        name = nodeid.rpartition("::")[2]
        row = row_of(name)
        if self.failures:
            self.failed.add(row)
        self.say("outcome", asdict(Outcome(row, name, self.seconds, self.failures, self.skipped)))


def _failure(item: pytest.Item, raised: pytest.ExceptionInfo[BaseException], report: pytest.TestReport) -> Failure:
    error = raised.value
    seed = script = None
    if isinstance(error, RuleFailure):
        expectation, observation, seed, script = error.expectation, error.observation, error.seed, error.script
    else:
        expectation, observation = blame(raised)  # of a fixture: what a test raises, the harness has explained
    details = "\n".join([report.longreprtext, *(f"-- {title} --\n{text}" for title, text in report.sections)])
    return Failure(item.name, expectation, observation, seed, script, details)


def main(target: str, folder: str) -> None:
    """Test *target*, as the parent says on standard input; *folder* is empty and the parent's to remove."""
    # The words go out on a copy of standard output, which becomes another name of standard error.
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _, description = open_target(target)
    except Refusal as refusal:
        wire.write(json.dumps({"refused": str(refusal)}) + "\n")
        wire.flush()
        return
    wire.write(json.dumps({"ready": asdict(description)}) + "\n")
    wire.flush()
    line = sys.stdin.readline()
    if not line:
        return
    job = json.loads(line)
    reporter = _Reporter(wire, job["rows"], job["done"], set(job["failed"]))
    place = Path(folder)
    (place / "pytest.ini").write_text(_INI, encoding="utf-8")
    module = place / "test_backend.py"
    module.write_text(
        "from polling_conformance.worker import open_target\n"
        f"TestBackend, _ = open_target({target!r}, {job['known']!r})\n",
        encoding="utf-8",
    )
    options = ["-c", str(place / "pytest.ini"), "--rootdir", folder, "--basetemp", str(place / "tmp"), "--noconftest"]
    options += ["--import-mode=importlib", "-p", "no:cacheprovider", "--quiet", str(module)]
    status = pytest.main(options, plugins=[reporter])
    # That a rule has no test is for the parent to judge.
    fine = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if status not in fine and not reporter.troubles:
        reporter.troubles.append(f"pytest ends with status {int(status)}")
    reporter.say("end", "\n".join(reporter.troubles))
