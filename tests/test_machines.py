"""The machines and their model: they find what is wrong, say how, and leave alone what the contract leaves open."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis.errors import UnsatisfiedAssumption

from polling import Backend, Capability, Event, Interest, Mode, Poll, Readiness, available_backends
from polling_conformance.course import POOLS, Course, Finding, NoFault, Step
from polling_conformance.failure import RuleFailure
from polling_conformance.model import Broken, Model
from polling_conformance.script import Outcome
from polling_conformance.suite import machine
from polling_conformance.suite.machine import Machine, Machines, shortened

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent

ALL = Capability(-1)
R, W, RW, PRIORITY = Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE, Interest.PRIORITY

on_linux = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the mutants derive from our backends for Linux")


@pytest.fixture
def mutant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type[Backend]]:
    """Give a wrong backend, or a right but unusual one, by its module and name."""
    monkeypatch.syspath_prepend(TESTS)

    def import_one(name: str) -> type[Backend]:
        family, _, name = name.partition(".")
        found: type[Backend] = getattr(import_module(f"mutants.{family}"), name)
        return found

    return import_one


# -- the model -----------------------------------------------------------------------------------------------


def unix(interest: Interest, mode: Mode, *, capabilities: Capability = ALL) -> Model:
    """Make a model in which one end of a connection, "near", is registered as "token"."""
    model = Model(capabilities)
    model.made("unix", "near", "far", (10, 11))
    model.registered("near", "token", interest, mode)
    return model


def judge(model: Model, *said: str, token: str = "token") -> set[str]:
    """Have the model judge a wait that returned one event, or none."""
    events = [Event[object](token, Readiness(**dict.fromkeys(said, True)))] if said else []
    return model.judge(events, 1024)


def data(model: Model, amount: int = 1) -> Model:
    model.written("far", Outcome(amount, ""))
    return model


def drained(model: Model) -> Model:
    model.read("near", Outcome(0, "would block"), drained=True)
    return model


def reported(model: Model, *said: str) -> Model:
    judge(model, *said)
    return model


def parked() -> Model:
    model = unix(R, Mode.LEVEL)
    model.reregistered("near", "parked", Interest.NONE, Mode.LEVEL)
    return data(model)


def closed() -> Model:
    model = unix(R, Mode.LEVEL)
    model.closed("near")
    return model


def half_closed(capabilities: Capability = ALL) -> Model:
    model = unix(R, Mode.LEVEL, capabilities=capabilities)
    model.half_closed("far")
    return model


def ghost() -> Model:
    model = unix(R, Mode.LEVEL)
    model.duplicated("near", "duplicate", 12)
    model.closed("near")
    return model


@pytest.mark.parametrize(
    ("model", "owed"),
    [
        (unix(R, Mode.LEVEL), set()),
        (unix(RW, Mode.LEVEL), {"writable"}),
        (data(unix(R, Mode.EDGE)), {"readable"}),
        (reported(data(unix(R, Mode.LEVEL)), "readable"), {"readable"}),
        (reported(data(unix(R, Mode.EDGE)), "readable"), set()),
        (data(reported(data(unix(R, Mode.EDGE)), "readable")), set()),
        (data(drained(reported(data(unix(R, Mode.EDGE)), "readable"))), {"readable"}),
        (data(reported(data(unix(R, Mode.ONESHOT)), "readable")), set()),
        (half_closed(), {"readable"}),
        (parked(), set()),
        (ghost(), set()),
    ],
)
def test_what_is_owed(model: Model, owed: set[str]) -> None:
    assert set().union(*model.owed().values()) == owed


@pytest.mark.parametrize(
    ("model", "said", "rule"),
    [
        (data(unix(R, Mode.LEVEL)), ["readable", "writable"], "INT-04"),
        (data(unix(R, Mode.LEVEL)), ["error"], "EVT-01"),
        (data(unix(R, Mode.LEVEL)), ["readable", "read_closed"], "EVT-04"),
        (data(unix(R, Mode.LEVEL)), ["readable", "write_closed"], "EVT-06"),
        (data(unix(R, Mode.LEVEL)), ["readable", "error"], "EVT-14"),
        (half_closed(~Capability.READ_CLOSED), ["readable", "read_closed"], "EVT-04"),
        (reported(half_closed(), "readable"), ["readable"], "EVT-04"),
        (reported(data(unix(R, Mode.ONESHOT)), "readable"), ["readable"], "ONE-01"),
        (data(unix(RW, Mode.ONESHOT)), ["readable"], "ONE-03"),
        (closed(), ["readable"], "REG-15"),
    ],
)
def test_what_is_ruled_out(model: Model, said: list[str], rule: str) -> None:
    with pytest.raises(Broken) as broken:
        judge(model, *said)
    assert rule in broken.value.rules
    assert rule in broken.value.expectation


def test_what_is_silent_or_unknown_or_too_much_is_ruled_out() -> None:
    with pytest.raises(Broken, match="INT-02"):
        judge(parked(), "readable", token="parked")
    with pytest.raises(Broken, match="EVT-22"):
        judge(unix(R, Mode.LEVEL), "readable", token="nobody's")
    event = Event[object]("token", Readiness(readable=True))
    with pytest.raises(Broken, match="MRG-01"):
        data(unix(R, Mode.LEVEL)).judge([event, event], 1024)
    with pytest.raises(Broken, match="CAP-01"):
        data(unix(R, Mode.LEVEL)).judge([event, event], 1)


def test_what_a_ghost_says_of_its_number_is_not_held_against_who_has_it_next() -> None:
    model = ghost()
    model.made("unix", "next", "other", (model.numbers["near"], 13))
    model.registered("next", "next's", RW, Mode.ONESHOT)
    own, ghosts = Readiness(writable=True), Readiness(readable=True, writable=True, read_closed=True)
    model.judge([Event[object]("next's", own), Event[object]("next's", ghosts)], 1024)
    model.judge([Event[object]("next's", ghosts)], 1024)


def test_wakes_come_once_and_do_come() -> None:
    model = unix(R, Mode.LEVEL)
    model.woken = True
    with pytest.raises(Broken, match="WAK-02"):
        judge(model)
    judge(model, "readable", token="waker")
    with pytest.raises(Broken, match="WAK-03"):
        judge(model, "readable", token="waker")


def test_what_the_contract_leaves_open_is_not_held_against_anybody() -> None:
    assert judge(unix(R, Mode.LEVEL), "readable") == {"token"}, "spurious: once is nothing, and whoever looks on counts"
    assert judge(reported(data(unix(R, Mode.EDGE)), "readable"), "readable") == {"token"}
    assert judge(ghost(), "readable", "read_closed") == set()
    assert judge(reported(half_closed(~Capability.READ_CLOSED), "readable"), "readable") == set()
    full = unix(W, Mode.LEVEL)
    full.written("near", Outcome(100_000, "would block"))
    assert not full.owed()
    full.read("far", Outcome(50_000, ""))
    assert not full.owed(), "half full"
    assert judge(full, "writable") == set()
    full.read("far", Outcome(50_000, "would block"), drained=True)
    assert full.owed() == {"token": {"writable"}}


def test_what_changes_during_a_wait_may_have_come_before_or_after() -> None:
    model = data(unix(R, Mode.LEVEL))
    before = model.current()
    model.deregistered("near")
    model.judge([Event("token", Readiness(readable=True))], 1024, during=before)
    model.judge([], 1024, during=before)
    with pytest.raises(Broken, match="REG-15"):
        judge(model, "readable")


# -- courses: what the operating system and the poll really do ------------------------------------------------

URGENT = [
    Step("make", ("net-tcp", "near", "far")),
    Step("register", ("near", (R | PRIORITY, Mode.LEVEL))),
    Step("urge", ("far",)),
    Step("wait", (1024, 0)),
]


def course(*backends: str | type[Backend], patience: float = 0.2, known: Iterable[str] = ()) -> Course:
    return Course([(backend, Poll[object](backend)) for backend in backends], list(known), patience)


def follow(taken: Course, steps: Iterable[Step]) -> None:
    with taken:
        for step in steps:
            assert taken.can(step), step
            taken.take(step)


EVERY_STEP = [
    *[
        Step("make", (kind, f"near{n}", f"far{n}"))
        for n, kind in enumerate(
            ["tcp", "udp", "net-udp", *(["unix", "net-unix"] if hasattr(socket, "AF_UNIX") else [])]
        )
    ],
    *[Step("make", (kind, f"reader{n}", f"writer{n}")) for n, kind in enumerate(["pipe", "net-pipe"])],
    Step("make", ("net-tcp", "a", "b")),
    Step("make", ("io-unix", "c", "d")),
    Step("listen", ("listener", "listener0")),
    Step("listen", ("net-listener", "l")),
    *[Step("register", (name, (RW, Mode.ONESHOT))) for name in "acl"],
    Step("register_twice", ("a", (R, Mode.LEVEL))),
    Step("refuse_unknown", ("b", "reregister")),
    Step("write", ("d", 10)),
    Step("knock", ("l",)),
    Step("wait", (1, 2)),
    Step("read", ("c", 5)),
    Step("drain", ("c",)),
    Step("read", ("l", 1)),
    Step("rearm", ("c",)),
    Step("fill", ("a",)),
    Step("drain", ("b",)),
    Step("rest", ()),
    Step("duplicate", ("a", "e")),
    Step("register", ("e", (W, Mode.LEVEL))),
    Step("reregister", ("e", (W, Mode.ONESHOT))),
    Step("during_a_wait", ("reregister", ("a", (R, Mode.EDGE_ONESHOT)))),
    Step("during_a_wait", ("write", ("b", 1))),
    Step("deregister", ("e",)),
    Step("close", ("e",)),
    Step("deregister_closed", ("e",)),
    Step("refuse_closed", ("e", "register")),
    Step("urge", ("b",)),
    Step("half_close", ("d",)),
    Step("reset", ("b",)),
    Step("wait", (1024, 0)),
]


@pytest.mark.parametrize("backend", available_backends())
def test_every_step_can_be_taken_on_our_backends(backend: str) -> None:
    assert {step.method for step in EVERY_STEP} >= POOLS.keys()
    follow(course(backend, patience=5), EVERY_STEP)
    follow(course(backend, *list(available_backends())[:1], patience=5), EVERY_STEP)


@on_linux
def test_another_backend_and_the_system_together_tell_what_the_model_cannot(
    mutant: Callable[[str], type[Backend]],
) -> None:
    deaf = mutant("registering.PriorityIsClaimed")
    follow(course(deaf), URGENT)  # the model alone does not know whether the byte is there still
    with pytest.raises(Finding) as finding:
        follow(course(deaf, "poll"), URGENT)
    assert "is reported priority" in finding.value.expectation
    assert "though poll, after the same steps" in finding.value.observation
    follow(course("poll", deaf), URGENT)  # the other one is not under test


@on_linux
def test_what_the_other_backend_breaks_is_not_held_against_the_one_under_test(
    mutant: Callable[[str], type[Backend]],
) -> None:
    steps = [
        Step("make", ("unix", "near", "far")),
        Step("register", ("near", (W, Mode.ONESHOT))),
        Step("wait", (1024, 0)),
    ]
    wrong = mutant("oneshots.OneshotFiresAgain")
    with pytest.raises(NoFault):
        follow(course("poll", wrong), steps)
    with pytest.raises(NoFault):
        follow(course(wrong, known=["ONE-01"]), steps)
    with pytest.raises(Finding):
        follow(course(wrong, known=["ONE-07"]), steps)


def test_a_call_that_the_alarm_ends_is_a_finding_and_not_made_again() -> None:
    waits = 0

    class Hanging(Poll[object]):
        def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
            nonlocal waits
            waits += 1
            raise RuleFailure("the message", "the test ends", "it hangs: stopped after 30 s")

    def begin() -> Course:
        backend = next(iter(available_backends()))
        return Course([(backend, Hanging(backend))])

    with pytest.raises(Finding, match="it hangs") as finding:
        follow(begin(), [Step("wait", (1024, 0))])
    assert finding.value.is_hang
    steps = [Step("wait", (1024, 0))] * 4
    other = Finding(["LVL-01"], "one thing", "another", "the(script)", steps)
    assert shortened(other, begin, float("inf")) is other
    assert waits == 2


@on_linux
def test_a_course_is_shortened_to_what_matters(mutant: Callable[[str], type[Backend]]) -> None:
    wrong = mutant("oneshots.OneshotFiresAgain")
    steps = [Step("make", ("tcp", "x", "y")), Step("register", ("x", (W, Mode.ONESHOT))), *EVERY_STEP]
    with pytest.raises(Finding) as finding:
        follow(course(wrong), steps)
    short = shortened(finding.value, lambda: course(wrong), float("inf"))
    assert [step.method for step in short.steps] == ["make", "register", "wait"]
    assert shortened(finding.value, lambda: course(wrong), 0) is finding.value, "there was no time"


@on_linux
def test_the_script_of_a_failure_shows_it_with_nothing_but_the_library(mutant: Callable[[str], type[Backend]]) -> None:
    wrong = mutant("oneshots.OneshotFiresAgain")
    with pytest.raises(Finding) as finding:
        follow(
            course(wrong),
            [Step("make", ("io-unix", "c", "d")), Step("register", ("c", (W, Mode.ONESHOT))), Step("wait", (1024, 1))],
        )
    expect_to_run_alone(finding.value)


@on_linux
def test_a_script_with_a_wait_in_a_thread_stands_alone_too(mutant: Callable[[str], type[Backend]]) -> None:
    with pytest.raises(Finding) as finding:
        follow(
            course(mutant("oneshots.OneshotFiresAgain")),
            [
                *(Step("make", ("io-unix", "c", "d")), Step("register", ("c", (W, Mode.ONESHOT)))),
                *(Step("during_a_wait", ("register", ("d", (R, Mode.LEVEL)))), Step("wait", (1024, 1))),
            ],
        )
    assert "Waiting(" in finding.value.script
    expect_to_run_alone(finding.value)


def expect_to_run_alone(finding: Finding) -> None:
    script = finding.script
    assert "polling_conformance" not in script
    shown = re.findall(r"^print\(.*\)  # (.*)$", script, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (shown, "")
    assert len(shown) >= 2
    assert script.splitlines()[-2:] == [
        f"# expected: {finding.expectation}",
        f"# observed: {finding.observation}",
    ]


# -- the machines, in an author's project ---------------------------------------------------------------------

HOSTILE = """
from hypothesis import HealthCheck, Phase, Verbosity, settings
settings.register_profile("hostile", max_examples=1, stateful_step_count=1, deadline=1, derandomize=True,
    phases=[Phase.explicit], verbosity=Verbosity.debug, report_multiple_bugs=True)
settings.load_profile("hostile")
"""

AUTHORS = """
from mutants.oneshots import OneshotFiresAgain
from polling import Poll
from polling_conformance.suite.machine import Machines

class TestWrong(Machines):
    backend = OneshotFiresAgain

class TestRight(Machines):
    backend = "epoll"
    polls = 0
    def new_poll(self):
        TestRight.polls += 1
        return Poll(self.backend)
    def test_machine_went_through_its_rows(self):
        assert TestRight.polls >= 10
"""


@on_linux
@pytest.mark.parametrize("conftest", ["", HOSTILE])
def test_no_profile_of_the_authors_breaks_or_silences_them(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, conftest: str
) -> None:
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *filter(None, sys.path)]))
    monkeypatch.setenv("POLLING_TIME_SCALE", "4")  # a busy machine has time for more than one row
    pytester.makeconftest(conftest)
    result = pytester.runpytest_subprocess(
        *["-p", "no:cacheprovider", "--strict-markers", "--strict-config", "-W", "error", "--hypothesis-seed=7"],
        *["-k", "keeps and seed-1 or rows", str(pytester.makepyfile(test_mine=AUTHORS))],
        timeout=110,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ TestWrong.test_machine_keeps_the_contract?seed-1? _*",
            "*RuleFailure: test_machine_keeps_the_contract?seed-1? does not hold on epoll",
            "*expected: * had its one event, and is silent until it is re-armed (ONE-01, ONE-02)",
            "*observed: <Event *",
            "*seed: *1",
            "*script:",
            "*from mutants.oneshots import OneshotFiresAgain",
            "*poll = Poll(OneshotFiresAgain)",
            "*print(*)  # *",
            "*# expected: *",
        ]
    )


def command(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "polling_conformance", target, "--rules", "machine", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@on_linux
def test_the_command_tells_seed_and_script_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = "mutants.oneshots:OneshotFiresAgain"
    done = command(target)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"\n    test: +test_machine_keeps_the_contract\[seed-\d\]\n", done.stdout)
    assert re.search(r"\n    seed: +\d\n    script: +from __future__ import annotations\n", done.stdout)
    assert f"polling-conformance {target} --rules machine" in done.stdout
    assert not [*tmp_path.iterdir()]


@on_linux
@pytest.mark.slow
def test_the_command_forgives_what_is_known(tmp_path: Path) -> None:
    known = tmp_path / "known.toml"
    known.write_text('ONE-01 = "fires again"')
    done = command("mutants.oneshots:OneshotFiresAgain", "--known", str(known))
    assert done.returncode == 0, done.stdout + done.stderr


# -- what they have compared ----------------------------------------------------------------------------------


def test_a_machine_that_came_to_compare_nothing_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    [backend, *_] = available_backends().values()
    machines = type("Hurried", (Machines,), {"backend": backend})()
    machines._test_name = "test_machine"
    monkeypatch.setattr(machine, "ENOUGH", -1000.0)  # as if all of the time had gone by
    with pytest.raises(RuleFailure, match="observed: not one, in 0 rows of steps"):
        machines.run_machine(1, [backend])


@on_linux
def test_a_machine_whose_rows_all_end_at_what_is_known_says_so(
    mutant: Callable[[str], type[Backend]],
) -> None:
    class Refusing(mutant("edges.EdgeIsLevel")):  # type: ignore[misc]  # a class all the same
        def register(self, fd: int, interest: Interest, mode: Mode) -> None:
            raise OSError(28, "no room")

    known = dict.fromkeys(("REG-10", "REG-12", "REG-16"), "no room")
    machines = type("Excused", (Machines,), {"backend": Refusing, "known_failures": known})()
    machines._test_name = "test_machine"
    with pytest.raises(pytest.skip.Exception, match="REG-10, REG-12, REG-16, known to be broken, ended each row"):
        machines.run_machine(1, [Refusing])


# -- whom they find -------------------------------------------------------------------------------------------


def search(backend: type[Backend]) -> RuleFailure | None:
    """Run the machine until it finds something, and give that. A busy machine tries less from each seed."""
    machines = type("Found", (Machines,), {"backend": backend})()
    machines._test_name = "test_machine"
    for begin in range(1, 5 * len(machine.SEEDS)):
        try:
            machines.run_machine(begin, [backend])
        except RuleFailure as failure:
            return failure
    return None


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "registering.DuplicatesAreOne",
        "modes.ParkedStaysInTheSet",
        "modes.HangupSetsEveryBit",
        "edges.EdgeIsLevel",
        "edges.EdgesAreNotRearmed",
        "edges.NobodyReportsWouldBlock",
        "oneshots.OneshotFiresAgain",
        "oneshots.OneDirectionIsDisarmed",
        "oneshots.RearmingWaitsForNews",
        "oneshots.FiredStaysInTheSet",
        "events.EndOfPeerIsHidden",
        "events.HalfCloseClosesWriting",
        "batches.RestOfABatchIsLost",
        "batches.LimitIsIgnored",
        "batches.GuessesHaveHints",
    ],
)
def test_wrong_backends_are_found(mutant: Callable[[str], type[Backend]], name: str) -> None:
    failure = search(mutant(name))
    assert failure is not None
    assert failure.script is not None


def test_the_last_wait_of_a_row_may_find_nothing_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*_: object) -> None:
        raise UnsatisfiedAssumption  # as after a known failure

    machine = Machine(course("iocp"), [])
    monkeypatch.setattr(machine, "take", take)
    machine.teardown()
