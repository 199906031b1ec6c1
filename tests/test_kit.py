"""The kit's frame, seen from an author's project with strict settings: it fails when it must, and says why."""

from __future__ import annotations

import sys

import pytest

from polling_conformance import BackendConformance

pytest_plugins = ["pytester"]

PREAMBLE = """
import os, threading, time
import pytest
from polling import Capability, Interest, Poll, PollClosedError, available_backends
from polling_conformance import BackendConformance
from polling_conformance.harness import Harness

Right = next(iter(available_backends().values()))

class ForgetfulPoll(Poll[object]):
    # Wrong: reports each token once, whatever the mode.
    def poll(self, timeout=None, max_events=1024):
        seen = self.__dict__.setdefault("seen", set())
        deadline = time.monotonic() + (60 if timeout is None else timeout)
        while True:
            fresh = [event for event in super().poll(0, max_events) if event.token not in seen]
            seen.update(event.token for event in fresh)
            if fresh or time.monotonic() >= deadline:
                return fresh
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(pytester, monkeypatch)


class Run:
    """Runs pytest on a module of an author's, where waits for what never comes are short."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        monkeypatch.setenv("POLLING_TIME_SCALE", "0.1")

    def __call__(self, module: str, *args: str, module_too: bool = True) -> pytest.RunResult:
        path = self._pytester.makepyfile(test_mine=PREAMBLE + module)
        return self._pytester.runpytest_subprocess(
            "-p",
            "no:cacheprovider",
            "--strict-markers",
            "--strict-config",
            *(["-o", "strict=true"] if pytest.version_tuple >= (9,) else []),
            "-W",
            "error",
            "-rsx",
            *args,
            *([path] if module_too else []),
            timeout=60,
        )


def test_a_failure_names_rule_backend_expectation_and_observation(run: Run) -> None:
    result = run(
        """
class TestMine(BackendConformance):
    backend = Right
    def new_poll(self):
        return ForgetfulPoll(self.backend)
""",
        "-k",
        "LVL_01_each_wait_reports_what_still_holds and tcp and not net",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*RuleFailure: LVL-01 does not hold on *",
            "*expected: events 'reader': readable within 1 s",
            "*observed: missing 'reader': readable; 1 waits:",
            "*after * s ??",
            "*scale: *all waits are 0.1 times as long as usual, by POLLING_TIME_SCALE",
        ]
    )


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_known_failure_is_expected_of_the_rule_and_not_of_each_test(run: Run, processes: tuple[str, ...]) -> None:
    result = run(
        """
class Rules(Harness):
    def test_LVL_01_forgets(self, poll):
        near, far = self.socketpair()
        poll.register(near, "near")
        far.send(b"x")
        for _ in range(2):
            self.expect_events(poll, {"near": "r"})
    @pytest.mark.parametrize("number", range(4))
    def test_LVL_01_is_closed(self, poll, number):
        poll.close()
    def test_LVL_02_is_not_known(self, poll):
        poll.close()

class TestWrong(Rules):
    backend = Right
    known_failures = {"LVL-01": "forgets"}
    def new_poll(self):
        return ForgetfulPoll(self.backend)

class TestRight(Rules):
    backend = Right
    known_failures = {"LVL-01": "long mended"}
""",
        *processes,
    )
    result.assert_outcomes(passed=2, xfailed=1, xpassed=9, errors=1)
    result.stdout.fnmatch_lines(
        ["E *UnexpectedPass: LVL-01 is listed as a known failure (long mended), and none of its tests fails"]
    )
    result.stdout.fnmatch_lines(["XFAIL*TestWrong*forgets*"])


FAILING_AND_PASSING = """
class Rules(Harness):
    def test_LVL_01_forgets(self, poll):
        near, far = self.socketpair()
        poll.register(near, "near")
        far.send(b"x")
        for _ in range(2):
            self.expect_events(poll, {"near": "r"})
    @pytest.mark.parametrize("number", range(2))
    def test_LVL_01_is_closed(self, poll, number):
        poll.close()

class TestWrong(Rules):
    backend = Right
    known_failures = {"LVL-01": "forgets"}
    def new_poll(self):
        return ForgetfulPoll(self.backend)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "is_closed"],
        ["test_mine.py::TestWrong::test_LVL_01_is_closed[0]"],
        ["-k", "is_closed", "-n", "2"],
    ],
    ids=["k", "test", "xdist"],
)
def test_a_known_failure_whose_failing_tests_were_left_out_is_no_surprise(run: Run, arguments: list[str]) -> None:
    result = run(FAILING_AND_PASSING, *arguments, module_too="-k" in arguments)
    assert result.ret == 0
    assert not result.parseoutcomes().get("errors")
    assert result.parseoutcomes()["xpassed"] >= 1


def test_a_known_failure_that_is_no_rule_stops_the_run(run: Run) -> None:
    result = run(
        """
class TestMine(BackendConformance):
    backend = Right
    known_failures = {"LVL-99": "a slip of the pen"}
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*known_failures names rules without a test: ?'LVL-99'?*"])


def test_a_class_that_cannot_be_tested_is_one_error_that_says_why(run: Run) -> None:
    result = run(
        """
class Incapable(Right):
    capabilities = None

class TestForgotten(BackendConformance):
    pass

class TestInstance(BackendConformance):
    backend = Incapable.name, "no backend"

class TestIncapable(BackendConformance):
    backend = Incapable
"""
    )
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "E *TestForgotten does not say what to test: set `backend` to a subclass of polling.Backend, or its name",
            "E *TestInstance.backend must be a subclass of polling.Backend, or its registered name, and is ('*",
            "E *Incapable.capabilities must be of type Capability, and is None",
        ]
    )


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"__init__": lambda self: None}, TypeError, "TestMine has a constructor, and pytest takes no tests"),
        ({"known_failures": ["LVL-01"]}, TypeError, "TestMine.known_failures must map rules to reasons"),
        ({"known_failures": {"LVL-01": ""}}, ValueError, "TestMine.known_failures gives '' as the reason for LVL-01"),
        ({"known_failures": {"LVL-01": 1}}, ValueError, "TestMine.known_failures gives 1 as the reason for LVL-01"),
        ({"known_failures": {1: "one"}}, ValueError, "TestMine.known_failures names rules without a test: .1."),
    ],
)
def test_a_class_that_is_wrong_by_itself_is_refused(
    members: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        type("TestMine", (BackendConformance,), members)


def test_a_class_that_is_a_base_of_others_need_not_say_what_to_test(run: Run) -> None:
    result = run(
        """
class Mine(BackendConformance):
    known_failures = {}

class TestMine(Mine):
    backend = Right
""",
        "-k",
        "LVL_03 and tcp",
    )
    assert result.ret == 0


def test_a_wrong_scale_stops_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_TIME_SCALE", "nan")
    result = run("class TestMine(BackendConformance):\n    backend = Right\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E *UsageError: POLLING_TIME_SCALE must be a number * such as 4, and is 'nan'"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell which descriptors are open")
def test_descriptors_that_a_test_leaves_or_takes_fail_it(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    def test_open_descriptors(self):
        TestMine.ends = os.pipe()
    def test_foreign_descriptors(self):
        for end in self.ends:
            os.close(end)
"""
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines_random(["*descriptor * is open: *", "*descriptor * is not the test's*closed"])


def test_threads_that_a_test_leaves_fail_it(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    def test_running_thread(self):
        threading.Thread(target=time.sleep, args=(60,), name="sleeper", daemon=True).start()
    def test_unasked_error(self):
        self.in_thread(lambda: 1 // 0)
    def test_waiting_thread_is_ended_by_the_close(self, poll):
        self.in_thread(poll.poll).blocked()
    def test_asked_error(self, poll):
        self.expect_error(ZeroDivisionError, self.in_thread(lambda: 1 // 0).result)
"""
    )
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines_random(["*thread sleeper is running", "E *ZeroDivision*"])


def test_what_hangs_or_never_blocks_is_ended(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    def test_hangs(self):
        while True:
            time.sleep(0.01)  # a longer one may not be interrupted on Windows
    def test_thread_does_not_return(self, poll):
        self.in_thread(poll.poll).result()
    def test_thread_ends_instead_of_blocking(self, poll):
        self.in_thread(poll.poll, 0).blocked()
    def test_spins(self):
        class Spinning(Poll[object]):
            def poll(self, timeout=None, max_events=1024):
                end = time.thread_time() + timeout
                while time.thread_time() < end:
                    pass
                return []
        with Spinning(Right) as poll:
            self.expect_silence(poll)
"""
    )
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*observed: it hangs: stopped after 3 s",
            "*observed: it is still running after 1 s in",
            "*instead of blocking: it returned ??*",
            "*s of processor time, and * asleep: the wait spins",
        ]
    )


def test_an_event_too_many_is_a_failure_when_it_comes_each_time(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    tries = 0
    @pytest.mark.parametrize("spurious", [0, 2, 3])
    def test_silence(self, poll, pair, tmp_path, monkeypatch, spurious):
        TestMine.tries += 1
        (tmp_path / "once").touch(exist_ok=False)
        assert "CHANGED" not in os.environ
        monkeypatch.setenv("CHANGED", "")
        reader, writer = pair
        poll.register(reader, "reader")
        if TestMine.tries <= spurious:
            writer.send(b"x")
        self.expect_silence(poll)
        TestMine.tries = 0
""",
        "-k",
        "tcp and not net",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*observed: after * s ?<Event 'reader': readable>?"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_children_report(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    def test_child(self):
        assert self.in_child(lambda: 42) == 42
    def test_child_raises(self):
        self.in_child(lambda: 1 // 0)
    def test_child_dies(self):
        self.in_child(lambda: os.kill(os.getpid(), 9))
    def test_child_hangs(self):
        self.in_child(lambda: time.sleep(60))
"""
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*expected: the forked child raises nothing",
            "*ZeroDivisionError*",
            "*it died with status -9",
            "*expected: the forked child ends",
        ]
    )


def test_scripts_report(run: Run) -> None:
    result = run(
        """
class TestMine(Harness):
    backend = Right
    def test_script(self):
        script = "import sys; print(backend.__name__, *sys.argv[1:])"
        assert self.run_script(script, "a", "b") == f"{Right.__name__} a b\\n"
    def test_script_fails(self):
        self.run_script("1 // 0")
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines_random(["*expected: the script ends with status 0", "*ZeroDivisionError*"])


def test_a_missing_capability_is_refused_and_then_named(run: Run) -> None:
    result = run(
        """
from polling import UnsupportedError

class Modest(Right):
    capabilities = Right.capabilities & ~Capability.PRIORITY

def refuse():
    raise UnsupportedError("no")

class TestMine(Harness):
    backend = Modest
    def test_skipped(self):
        self.needs(Capability.PRIORITY)
    def test_refused(self):
        self.needs(Capability.PRIORITY, refused=refuse)
    def test_hidden(self):
        self.needs(Capability.PRIORITY, refused=lambda: "served")
"""
    )
    result.assert_outcomes(skipped=2, failed=1)
    result.stdout.fnmatch_lines_random(
        ["SKIPPED*does not declare PRIORITY", "SKIPPED*PRIORITY, and refuses it", "*observed: it returned 'served'"]
    )


def test_nothing_is_collected_but_what_the_author_names(run: Run) -> None:
    run("", "--collect-only").assert_outcomes()


def test_no_two_families_of_rules_define_the_same_name() -> None:
    # All of them are bases of one class: of two helpers with one name, one family would silently get the other's.
    definers: dict[str, list[str]] = {}
    for family in BackendConformance.__mro__:
        if family.__module__.startswith("polling_conformance."):
            for name in vars(family):
                if not name.startswith("__"):
                    definers.setdefault(name, []).append(family.__name__)
    twice = {name: families for name, families in definers.items() if len(families) > 1}
    assert not twice
