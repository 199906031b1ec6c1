"""``polling-conformance``: its verdicts, its reports, and what it does with backends that hang or die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack, suppress
from html import escape
from pathlib import Path

import pytest

from polling_conformance.__main__ import main
from polling_conformance.report import Report
from polling_conformance.rules import CONTRACT_VERSION, RULES
from polling_conformance.runner import Conclusion, State, Verdict, judge
from polling_conformance.worker import SMOKE, Description, Failure, Outcome

BACKENDS = """
import os, signal, time
import pytest
from polling import Backend, Capability, Mode, Poll, available_backends
from polling_conformance import BackendConformance
from polling_conformance.durations import THOROUGH

Right = next(iter(available_backends().values()))

class Forgetful(Right):
    # Wrong: reports in level mode what is new only.
    name = "forgetful"
    def register(self, fd, interest, mode):
        super().register(fd, interest, Mode.EDGE if mode is Mode.LEVEL else mode)

class Deadly(Right):
    # Wrong: hangs where no signal handler can run, dies, or talks too much.
    name = "deadly"
    def register(self, fd, interest, mode):
        if mode is Mode.ONESHOT:
            with open("hanging.pid", "w") as file:
                file.write(str(os.getpid()))
            if hasattr(signal, "pthread_sigmask"):  # on Windows a sleep is not interrupted anyway
                signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)
        if mode is Mode.EDGE:
            os._exit(3)
        super().register(fd, interest, mode)

class Mute(Right):
    # Wrong: is never woken, and sees nothing.
    name = "mute"
    def waiter(self):
        return lambda timeout, max_events: time.sleep(min(timeout, 0.01)) or []

class Modest(Right):
    name = "modest"
    capabilities = Right.capabilities & ~Capability.PIPES

class TestSuite(BackendConformance):
    backend = Forgetful
    known_failures = {"LVL-01": "forgets", "LVL-02": "long mended"}

class TestSkipping(BackendConformance):
    backend = Right
    def new_poll(self):
        if self._test_name.startswith("test_LVL_01"):
            pytest.skip("too hard")
        return Poll(self.backend)
    test_LVL_02_thorough = lambda self: self.check(THOROUGH, "to be thorough", THOROUGH)
    _test_name = ""

class TestMore(BackendConformance):
    backend = Right
    def test_mine_holds(self):
        self.check(False, "more than the contract", "no more")

class Abstract(Backend):
    name = "abstract"
    capabilities = Capability.PIPES

class Outer:
    class Inner(Right):
        name = "inner"
    class TestInner(BackendConformance):
        backend = Right

class NoName(Right):
    name = None

class NoCapabilities(Right):
    capabilities = None

class Raising(Right):
    def __init__(self):
        raise ValueError("no luck")

class Unavailable(Right):
    name = "unavailable"
    unavailable_reason = classmethod(lambda cls: "the moon is wrong")

class TestNothing(BackendConformance):
    pass

class TestInstance(BackendConformance):
    backend = Right

TestInstance.backend = Right.name, "not a backend"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a stranger's project, whose pytest configuration would break every run that reads it."""
    (tmp_path / "mine.py").write_text(BACKENDS, encoding="utf-8")
    (tmp_path / "conftest.py").write_text("1 // 0", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name in "PYTEST_ADDOPTS", "PYTEST_PLUGINS":
        monkeypatch.setenv(name, "--nonsense")
    monkeypatch.setenv("POLLING_TIME_SCALE", "0.1")
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "polling_conformance", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    assert ended.stderr == "" or ended.returncode == 2, ended.stderr
    return ended


def states(report: Path) -> dict[str, dict[str, str]]:
    """Give what a report says: target → row → state."""
    found = json.loads(report.read_text(encoding="utf-8"))
    return {b["target"]: {row: v["state"] for row, v in b["rules"].items()} for b in found["backends"]}


# -- verdicts ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no backend there has PIPES to take away")
def test_right_and_wrong_backends_side_by_side(project: Path) -> None:
    ended = run(
        *["mine:Right", "mine:Forgetful", "mine:Modest", "--rules", "LVL-01,LVL-02,REG-08,WIN-03"],
        *["--json", "out.json", "--html", "out.html", "--junit", "out.xml"],
    )
    assert ended.returncode == 1, ended.stdout
    good = {SMOKE: "pass", "LVL-01": "pass", "LVL-02": "pass", "REG-08": "pass", "WIN-03": "declined"}
    assert states(project / "out.json") == {
        "mine:Right": good,
        "mine:Forgetful": good | {"LVL-01": "fail"},
        "mine:Modest": good | {"REG-08": "not applicable"},
    }
    for words in (
        f"contract {CONTRACT_VERSION}, polling-io ",
        r"LVL-01 +pass +FAIL +pass, 4 not run +In level mode",
        r"LVL-01 does not hold on mine:Forgetful\n +rule: +In level mode",
        r"\n +intent: +.*\n +check: +",
        r"\n +facility: completion ports: An operation ends once",
        r"\n +test: +test_LVL_01_\w+\[tcp\]\n +expected: events 'reader': readable within 1 s\n +observed: missing",
        r"\n +not run: +\d+ more of the rule's \d+ tests",
        r"\n +again: +polling-conformance mine:Forgetful --rules LVL-01\n",
        r"\nmine:Right keeps what was tested of contract .*: 4 pass, 1 declined;",
        r"\nmine:Forgetful does not keep contract .*: 3 pass, 1 fail, 1 declined;",
        r"\n +not applicable, modest does not declare PIPES: REG-08\n",
        r"\n +tests not run, modest does not declare PIPES: LVL-01 \(\d+ of \d+\), LVL-02 \(\d+ of \d+\)\n",
    ):
        assert re.search(words, ended.stdout), f"{words!r} is not in\n{ended.stdout}"

    # The reports agree, and the script that they give shows the failure.
    modest = json.loads((project / "out.json").read_text(encoding="utf-8"))["backends"][2]["rules"]["LVL-01"]
    assert modest["skipped"] == {"modest does not declare PIPES": 4}
    left_out = f"4 of {modest['tests']} tests not run: modest does not declare PIPES"
    assert left_out in (project / "out.xml").read_text(encoding="utf-8")
    assert left_out.partition(" tests")[0] + " not run" in (project / "out.html").read_text(encoding="utf-8")
    cases = ET.parse(project / "out.xml").getroot().findall("testsuite[@name='mine:Forgetful']/testcase[failure]")
    assert [case.get("name") for case in cases] == ["LVL-01"]
    [failure] = json.loads((project / "out.json").read_text(encoding="utf-8"))["backends"][1]["rules"]["LVL-01"][
        "failures"
    ]
    page = (project / "out.html").read_text(encoding="utf-8")
    for part in (RULES["LVL-01"].intent, failure["expectation"], failure["observation"], failure["script"]):
        assert re.sub("`([^`]*)`", r"<code>\1</code>", escape(part)) in page
    assert failure["expectation"] in assert_that_it_fails(project, failure["script"])


def test_classes_within_classes_are_tested_and_their_failures_reproduced(project: Path) -> None:
    (project / "within.py").write_text(
        "import mine\nclass Outer:\n    class Wrong(mine.Forgetful): pass\n    class Known(mine.TestSuite): pass\n",
        encoding="utf-8",
    )
    ended = run(
        *["mine:Outer.Inner", "mine:Outer.TestInner", "within:Outer.Wrong", "within:Outer.Known"],
        *["--rules", "LVL-01,THR-01", "--json", "out.json"],
    )
    assert {target: found["LVL-01"] for target, found in states(project / "out.json").items()} == {
        "mine:Outer.Inner": "pass",
        "mine:Outer.TestInner": "pass",
        "within:Outer.Wrong": "fail",
        "within:Outer.Known": "known failure",
    }
    assert ended.returncode == 1
    assert ", POLLING_TIME_SCALE=0.1\n" in ended.stdout
    for backend in json.loads((project / "out.json").read_text(encoding="utf-8"))["backends"][2:]:
        [failure] = backend["rules"]["LVL-01"]["failures"]
        assert_that_it_fails(project, failure["script"])


def assert_that_it_fails(project: Path, script: str) -> str:
    """Run a script that a report gives, as its reader would; give what it says."""
    (project / "again.py").write_text(script, encoding="utf-8")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "POLLING_"))}
    again = subprocess.run([sys.executable, "again.py"], env=plain, capture_output=True, text=True, timeout=60)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "1 failed" in again.stdout
    return again.stdout


def test_who_keeps_all_that_was_asked_ends_with_status_0(project: Path) -> None:
    ended = run("mine:Right", "--rules", "LVL-03,WIN-03")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "mine:Right keeps what was tested of contract" in ended.stdout


def test_a_backend_that_hangs_or_dies_costs_one_rule_and_not_the_run(project: Path) -> None:
    ended = run("mine:Deadly", "--rules", "LVL-02,EDG-01,ONE-01,EVT-02", "--json", "out.json")
    assert ended.returncode == 1
    assert states(project / "out.json")["mine:Deadly"] == {
        SMOKE: "pass",
        "LVL-02": "pass",
        "EDG-01": "fail",
        "ONE-01": "fail",
        "EVT-02": "pass",
    }
    assert re.search(
        r"test_EDG_01_.*\n +expected: the test ends\n +observed: its process died with status 3", ended.stdout
    )
    hang = r"test_ONE_01_.*\n +expected: the test ends\n +observed: killed after 4 s without a sign of life:"
    assert re.search(hang, ended.stdout)
    assert re.search(r"mine\.py\"?, line \d+ in register", ended.stdout), "nothing says where it hangs"
    if sys.platform != "win32":  # where 0 is no question, but a Ctrl-C
        with pytest.raises(ProcessLookupError):
            os.kill(int((project / "hanging.pid").read_text(encoding="utf-8")), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be sent a SIGTERM that it handles there")
@pytest.mark.parametrize("names", ["SIGTERM", "SIGHUP", "SIGINT SIGINT SIGHUP SIGTERM"])
def test_a_signal_ends_what_was_started_also_what_hangs(project: Path, names: str) -> None:
    scratch = project / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "polling_conformance", "mine:Deadly", "--rules", "ONE-01"]
    environment = {**os.environ, "TMPDIR": str(scratch), "POLLING_TIME_SCALE": "10"}  # so that it hangs on
    hangup = signal.Signals["SIGHUP"]
    former = signal.signal(hangup, signal.SIG_DFL)  # or under nohup the command would ignore it as this very run does
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    signal.signal(hangup, former)
    with process, ExitStack() as cleaning:
        cleaning.callback(process.kill)
        hanging = project / "hanging.pid"
        end = time.monotonic() + 60
        while not (hanging.exists() and hanging.read_text()) and time.monotonic() < end:
            time.sleep(0.01)
        worker = int(hanging.read_text())
        cleaning.callback(kill_if_there, worker)
        for name in names.split():
            process.send_signal(signal.Signals[name])
            time.sleep(0.003)  # or the system hands over all of them at once, in an order of its own
        assert process.wait(60) == 130
        assert not [*scratch.iterdir()]
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
        cleaning.pop_all()


def kill_if_there(worker: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker, signal.Signals["SIGKILL"])


@pytest.mark.parametrize(
    "trouble", ["import nowhere", "class B(Backend):\n    @classmethod\n    def unavailable_reason(cls): 1 / 0"]
)
def test_a_broken_package_is_named_and_in_nobody_else_s_way(
    project: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    package = project / "site" / "broken-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[polling.backends]\nbroken = broken_module:B\n")
    (package.parent / "broken_module.py").write_text(f"from polling import Backend\n{trouble}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    ended = run("--rules", "LVL-02")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.search(r"polling-conformance: backend 'broken' is left out: .*; name the backends", ended.stderr)
    ended = run("iocp", "--rules", "LVL-02")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_rule_is_tried_while_smoke_fails(project: Path) -> None:
    ended = run("mine:Mute", "--rules", "LVL, core", "--json", "out.json")
    assert ended.returncode == 1
    found = states(project / "out.json")["mine:Mute"]
    assert found.pop(SMOKE) == "fail"
    assert set(found.values()) == {"not run"}
    assert found.keys() == {name for name, rule in RULES.items() if rule.core or name.startswith("LVL-")}


def test_known_failures_are_strict_and_only_the_suite_skips(project: Path) -> None:
    (project / "known.toml").write_text('LVL-03 = "so they say"\n', encoding="utf-8")
    ended = run(
        *["mine:TestSuite", "mine:TestSkipping", "--known", "known.toml"],
        *["--rules", "LVL-01,LVL-02,LVL-03", "--json", "out.json", "--thorough"],
    )
    assert ended.returncode == 1
    assert states(project / "out.json") == {
        "mine:TestSuite": {
            SMOKE: "pass",
            "LVL-01": "known failure",
            "LVL-02": "unexpected pass",
            "LVL-03": "unexpected pass",
        },
        "mine:TestSkipping": {SMOKE: "pass", "LVL-01": "fail", "LVL-02": "pass", "LVL-03": "unexpected pass"},
    }
    assert re.search(r"\n +known failure, forgets: LVL-01\n", ended.stdout)
    again = "again:    polling-conformance mine:TestSuite --rules LVL-02 --known known.toml --thorough\n"
    assert again in ended.stdout
    assert "LVL-02 was expected to fail on mine:TestSuite" in ended.stdout
    assert "(long mended), and does not fail" in ended.stdout
    assert re.search(r"observed: .*mine\.py\s+skips\s+it:\s+too\s+hard", ended.stdout), ended.stdout


# -- bad input -----------------------------------------------------------------------------------------------


def test_what_cannot_be_tested_is_named_before_anything_is_run(project: Path) -> None:
    (project / "broken.py").write_text("import mine\n1 // 0\n", encoding="utf-8")
    (project / "leaving.py").write_text("raise SystemExit('bye')\n", encoding="utf-8")
    suite = "from mine import *\nclass TestMine(BackendConformance):\n    "
    (project / "constructed.py").write_text(suite + "def __init__(self): pass", encoding="utf-8")
    (project / "listed.py").write_text(suite + "known_failures = ['LVL-01']", encoding="utf-8")
    (project / "reasonless.py").write_text(suite + "known_failures = {'LVL-01': ''}", encoding="utf-8")
    said = {
        "absent:Class": "cannot be imported: ModuleNotFoundError: No module named 'absent'",
        "broken:Class": r"cannot be imported: ZeroDivisionError: .* \(.*broken\.py, line 2\)",
        "leaving:Class": "cannot be imported: SystemExit: bye",
        "mine:Absent": "cannot be imported: AttributeError: module 'mine' has no attribute 'Absent'",
        "mine:Poll": "Poll is a subclass neither of polling.Backend nor of BackendConformance",
        "mine:os": "<module 'os' .*> is a subclass neither",
        "mine:Abstract": "no poll can be made on it: TypeError: Can't instantiate abstract class",
        "mine:Raising": r"no poll can be made on it: ValueError: no luck \(.*mine\.py, line \d+\)",
        "mine:Unavailable": "no poll can be made on it: .*the moon is wrong",
        "mine:TestNothing": "TestNothing does not say what to test: set `backend` to a subclass of polling.Backend",
        "mine:TestInstance": r"TestInstance.backend must be a subclass of polling.Backend, .* and is \('",
        "mine:NoName": "NoName.name must be of type str, and is None",
        "mine:NoCapabilities": "NoCapabilities.capabilities must be of type Capability, and is None",
        "mine:Outer.Absent": "cannot be imported: AttributeError: type object 'Outer' has no attribute 'Absent'",
        "constructed:TestMine": r"cannot be imported: TypeError: TestMine has a constructor, .*constructed\.py, line 2",
        "listed:TestMine": "cannot be imported: TypeError: TestMine.known_failures must map rules to reasons, and is",
        "reasonless:TestMine": "cannot be imported: ValueError: .* gives '' as the reason for LVL-01",
        "nosuch": r"no poll can be made on it: .*there is no backend 'nosuch'; there are: [a-z, ]*$",
    }
    ended = run("mine:Right", *said, "--json", "out.json")
    assert (ended.returncode, ended.stdout) == (2, "")
    for target, message in said.items():
        said_of_it = re.search(f"{re.escape(target)}: {message}", ended.stderr, re.MULTILINE)
        assert said_of_it, f"{target} is not in\n{ended.stderr}"
    assert "mine:Right:" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rules LVL-99", "there is no rule 'LVL-99'"),
        ("--rules LVL-01,", "there is no rule ''"),
        ("--rules WIN-03", "none of WIN-03 has a test"),
        ("--known absent.toml", "absent.toml cannot be read: No such file"),
        ("--known broken.toml", "broken.toml is not TOML: "),
        ("--known binary.toml", "binary.toml is not TOML: "),
        ("--known slip.toml", "slip.toml: there is no rule 'LVL-O1'"),
        ("--known reason.toml", "reason.toml: LVL-01 must have a reason"),
        ("--known declined.toml", "declined.toml: WIN-03 has no test that could fail"),
        ("--html absent/out.html", "out.html cannot be written: No such file"),
        ("--json .", ". cannot be written: "),
        ("--junit absent/out.xml", "out.xml cannot be written"),
        ("--html new.html --junit absent/out.xml", "out.xml cannot be written"),
        ("--html out --json ./out", "out is named for 2 things at once"),
        ("--known known.toml --json known.toml", "known.toml is named for 2 things at once"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_run(
    arguments: str, message: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "broken.toml").write_text("LVL-01 = reason", encoding="utf-8")
    (project / "binary.toml").write_bytes(b'LVL-01 = "\xff"')
    (project / "slip.toml").write_text('LVL-01 = "right"\nLVL-O1 = "wrong"', encoding="utf-8")
    (project / "reason.toml").write_text("LVL-01 = true", encoding="utf-8")
    (project / "declined.toml").write_text('WIN-03 = "reason"', encoding="utf-8")
    (project / "known.toml").write_text('LVL-01 = "reason"', encoding="utf-8")
    (project / "__pycache__").mkdir()  # of what is imported to see which rules it has
    before = sorted(project.iterdir())
    monkeypatch.setattr(sys, "argv", ["polling-conformance", "mine:Right", *arguments.split()])
    monkeypatch.setattr(sys, "path", [*sys.path])
    status = main()
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err
    assert sorted(project.iterdir()) == before, "an empty report is left"


@pytest.mark.parametrize("scale", ["fast", "0", "-1", "nan", "inf", "1e9"])
def test_a_wrong_scale_is_named_before_anything_is_run(
    scale: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLLING_TIME_SCALE", scale)
    monkeypatch.setattr(sys, "argv", ["polling-conformance", "mine:Right"])
    assert main() == 2
    assert capsys.readouterr() == (
        "",
        f"polling-conformance: POLLING_TIME_SCALE must be a number from 0.01 to 1000, such as 4, and is {scale!r}\n",
    )


def test_a_wrong_scale_is_no_traceback_either(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_TIME_SCALE", "fast")
    ended = run("mine:Right")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("polling-conformance: POLLING_TIME_SCALE must be")


@pytest.mark.skipif(
    sys.platform == "win32" or not Path("/dev/full").exists(), reason="this platform has no file that is always full"
)
def test_what_cannot_be_written_is_said_and_ends_the_run(project: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "polling_conformance", "mine:Right", "--rules", "LVL-03"]
    full = "cannot be written: No space left on device\n"
    ended = run("mine:Right", "--rules", "LVL-03", "--json", "/dev/full")
    assert (ended.returncode, ended.stderr) == (2, f"polling-conformance: /dev/full {full}")
    with open("/dev/full", "w") as out:
        short = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (short.returncode, short.stderr) == (2, f"polling-conformance: standard output {full}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `head` does when it has enough
        broken = "polling-conformance: standard output cannot be written: Broken pipe\n"
        assert (process.stderr.read(), process.wait(60)) == (broken, 2)
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (closed.returncode, closed.stderr) == (2, "polling-conformance: standard output is closed\n")


def test_the_rules_are_listed_with_level_and_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["polling-conformance", "--list"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RULES)
    assert re.search(r"^LVL-01  required +core  tested +In level mode", "\n".join(lines), re.MULTILINE)
    assert re.search(r"^WIN-03 .* declined +Sockets", "\n".join(lines), re.MULTILINE)


# -- what a verdict is ---------------------------------------------------------------------------------------

PASSED = Outcome("LVL-01", "test_LVL_01_a", 0.5)
SKIPPED = Outcome("LVL-01", "test_LVL_01_b", 0.5, skipped="does not declare X")
FAILED = Outcome("LVL-01", "test_LVL_01_c", 0.5, [Failure("test_LVL_01_c", "this", "that")])


@pytest.mark.parametrize(
    ("outcomes", "known", "state", "reason"),
    [
        ([PASSED], None, State.PASS, ""),
        ([PASSED, SKIPPED], None, State.PASS, ""),
        ([SKIPPED], None, State.NOT_APPLICABLE, "does not declare X"),
        ([PASSED, SKIPPED, FAILED], None, State.FAIL, ""),
        ([FAILED], "why", State.KNOWN, "why"),
        ([PASSED, FAILED], "why", State.KNOWN, "why"),
        ([PASSED], "why", State.UNEXPECTED, "It is listed as a known failure (why), and does not fail."),
        ([SKIPPED], "why", State.UNEXPECTED, "It is listed as a known failure (why), and does not fail."),
        ([], None, State.FAIL, ""),
        ([], "why", State.FAIL, ""),
    ],
)
def test_a_verdict(outcomes: list[Outcome], known: str | None, state: State, reason: str) -> None:
    verdict = judge("LVL-01", outcomes, len(outcomes), known, smoke_failed=False)
    assert (verdict.state, verdict.reason) == (state, reason)


def test_a_verdict_counts_what_was_left_out_of_a_rule_that_passes() -> None:
    assert judge("LVL-01", [PASSED, SKIPPED, SKIPPED], 3, None, smoke_failed=False).skipped == {"does not declare X": 2}
    assert judge("LVL-01", [SKIPPED], 1, None, smoke_failed=False).skipped == {}, "the reason is the verdict's"


def test_tests_of_an_authors_own_are_not_asked_of_others() -> None:
    assert judge("mine", [], 0, None, smoke_failed=False).state is State.NOT_APPLICABLE
    assert judge("mine", [], 0, None, smoke_failed=True).state is State.NOT_RUN


def test_a_test_of_an_authors_own_is_run_again_by_the_command_that_its_failure_names(project: Path) -> None:
    ended = run("mine:TestMore", "mine:Right", "--rules", "mine", "--json", "out.json")
    assert ended.returncode == 1, ended.stderr
    assert states(project / "out.json") == {
        "mine:TestMore": {SMOKE: "pass", "mine": "fail"},
        "mine:Right": {SMOKE: "pass", "mine": "not applicable"},
    }
    assert "\n    again:    polling-conformance mine:TestMore --rules mine\n" in ended.stdout
    ended = run("mine:Right", "--rules", "mine")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "there is no rule 'mine'" in ended.stderr


def test_a_rule_says_itself_why_it_is_not_tested() -> None:
    for rule in RULES.values():
        verdict = judge(rule.id, [], 0, None, smoke_failed=False)
        assert verdict.state.good == bool(rule.planned or rule.declined or rule.untested)
        assert verdict.reason or verdict.failures


# -- reports -------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert('x')</script> & \"quotes\" \x00\x1b[31m \udcff $text `code` ]]>"


def hostile_report() -> Report:
    failure = Failure(f"test_LVL_01_x[{HOSTILE}]", HOSTILE, f"{HOSTILE}\nsecond line", "12345", "the(script)", HOSTILE)
    conclusion = Conclusion(HOSTILE, Description(HOSTILE, ["PIPES"], {}, [SMOKE], is_suite=False))
    for row, state, failures in [
        (SMOKE, State.PASS, []),
        ("LVL-01", State.FAIL, [failure]),
        ("LVL-02", State.KNOWN, [failure]),
        ("LVL-03", State.UNEXPECTED, []),
    ]:
        conclusion.verdicts[row] = Verdict(row, state, HOSTILE if state is not State.PASS else "", failures)
    return Report([conclusion], list(conclusion.verdicts), partial=True)


def test_the_page_holds_every_failure_and_needs_nothing_else() -> None:
    page = hostile_report().html()
    page.encode("utf-8", errors="backslashreplace")
    assert "<script>alert" not in page
    assert escape(HOSTILE) in page
    for part in ("12345", "the(script)", escape(RULES["LVL-01"].intent.partition("`")[0]), 'id="matrix"'):
        assert part in page
    assert len(re.findall('<details class="failure"', page)) == 3
    assert set(re.findall(r' href="#([^"]+)"', page)) == set(re.findall(r'<details class="failure" id="([^"]+)"', page))
    assert not re.search(r"https?:|//\w|\ssrc=|<link|@import|url\(", page.replace(escape(HOSTILE), ""))
    assert "$" not in page.replace(escape(HOSTILE), "").replace("$text", "")


def test_junit_and_json_hold_every_state() -> None:
    report = hostile_report()
    suite = ET.fromstring(report.junit()).find("testsuite")
    assert suite is not None
    assert [found.get("name") for found in suite.iter("property")] == ["machine"]
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "4",
        "failures": "2",
        "skipped": "1",
        "errors": "0",
    }
    messages = {case.get("name"): [child.tag for child in case] for case in suite.findall("testcase")}
    assert messages == {SMOKE: [], "LVL-01": ["failure"], "LVL-02": ["skipped"], "LVL-03": ["failure"]}
    data = json.loads(report.json())
    assert (data["contract"], data["conforms"], data["partial"]) == (CONTRACT_VERSION, False, True)
    assert data["backends"][0]["rules"]["LVL-01"]["failures"][0]["observation"] == f"{HOSTILE}\nsecond line"


def test_a_test_may_bring_a_script_of_its_own() -> None:
    [conclusion] = hostile_report().conclusions
    [failure] = conclusion.verdicts["LVL-01"].failures
    assert hostile_report().reproduction(conclusion, failure) == "the(script)"


def test_a_script_searches_as_long_as_the_run_did() -> None:
    conclusion = Conclusion("mine:Outer.Inner", Description("inner", [], {}, [SMOKE], is_suite=False))
    thorough = Report([conclusion], [SMOKE], partial=False, thorough=True)
    script = thorough.reproduction(conclusion, Failure("test_LVL_01_x", "this", "that"))
    set_it, kit = "os.environ['POLLING_THOROUGH'] = '1'\n", "from polling_conformance import BackendConformance\n"
    assert script.index(set_it) < script.index(kit)
    compile(script, "script", "exec")
