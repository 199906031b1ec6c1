"""The machines: long rows of random steps over the whole interface, judged by the contract written as a program.

A rule's test looks at one promise in the situation that its author thought of. The machines look for situations
that nobody thought of: Hypothesis strings steps together (make a source, register, write, drain, close, wait, ...),
``polling_conformance.course`` takes them, ``polling_conformance.model`` says after each what the poll owes, and when a
wait disagrees the row is cut down to a short one that still fails, and printed as a script.

``test_machine_keeps_the_contract`` judges one backend by the model. ``test_machine_agrees_with_another_backend`` takes
the same steps on two backends side by side, and where the model cannot know whether something is ready, it holds
against the one what both the other and the operating system say.

The same seed gives the same steps, always, with the same version of Hypothesis and the same modules around it: it
also tries the constants that it finds in them. The script depends on neither. Each seed is a test, and a short one:
so they can be dealt out to several processes, none comes near the limit at which a hanging test is ended, and
its name is all it takes to run one again.

A failure of a rule that the backend is known to break (``known_failures``) ends a row and no more.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, reject, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, Unsatisfiable, UnsatisfiedAssumption
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from polling import Backend, Capability, Interest, Mode, Poll
from polling._loader import BUILT_IN, load_backend
from polling_conformance.course import PATIENCE, POOLS, Course, Finding, NoFault, Step, Wish
from polling_conformance.durations import SIGNAL_WAIT, SILENCE, THOROUGH
from polling_conformance.harness import Harness
from polling_conformance.model import SMALL

__all__ = ["Machines"]

SEEDS: Final = range(1, 151) if THOROUGH else range(1, 9)
"""Where the rows of steps begin that are judged by the model."""

SEEDS_SIDE_BY_SIDE: Final = range(1, 76) if THOROUGH else range(1, 4)
"""Where those begin that are taken on two backends. They cost twice as much."""

ROWS: Final = 50
"""Rows of steps from one seed: about a second's worth."""

STEPS: Final = 40
"""Steps in a row, at most."""

RESTS: Final = 2
"""How often a row may look whether a wait sleeps: that takes time, and Hypothesis likes rows of one step only."""

ENOUGH: Final = (0.2 if THOROUGH else 0.5) * SIGNAL_WAIT
"""Seconds after which no further row of a seed begins, if something was compared. Only a slow backend or a busy machine
comes so far."""

SHORTENING: Final = 0.8 * SIGNAL_WAIT
"""Seconds after the first failure, in which a shorter row is looked for that fails as well."""

MOST: Final = 6
"""Sources that are open at the same time."""


class OutOfTime(Exception):
    """Nothing was found, and no more rows are to be tried."""


class Machine(RuleBasedStateMachine):
    """Draws the steps of a course."""

    def __init__(self, course: Course, findings: list[Finding]) -> None:
        super().__init__()
        self.course = course
        self.findings = findings
        self.is_over = False
        self.made = 0
        self.rests = 0

    def take(self, method: str, *arguments: object) -> None:
        try:
            self.course.take(Step(method, arguments))
        except Finding as finding:
            self.is_over = True
            self.findings.append(finding)
            raise
        except NoFault:
            self.is_over = True
            reject()

    def pick(self, method: str, index: int) -> str:
        names = POOLS[method](self.course)
        return names[index % len(names)]

    def teardown(self) -> None:
        with self.course:
            if not self.is_over:
                with suppress(UnsatisfiedAssumption):  # Hypothesis may have ended the row, and is not to be told again
                    self.take("wait", 1024, 0)

    # -- sources -------------------------------------------------------------------------------------------

    index = st.integers(0, 5)
    sizes = st.integers(1, SMALL)
    modes = st.sampled_from(list(Mode))
    usual = st.sampled_from([Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE])
    interests = usual | st.sampled_from([Interest.NONE, Interest.PRIORITY, Interest.READABLE | Interest.PRIORITY])
    wishes = st.tuples(interests, modes)

    def has_room(self) -> bool:
        return len(self.course.open()) < MOST

    def new(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    @precondition(has_room)
    @rule(
        kind=st.sampled_from(["unix", "net-unix", "io-unix", "tcp", "net-tcp", "pipe", "net-pipe", "udp", "net-udp"]),
        watch_near=st.none() | wishes,
        watch_far=st.none() | wishes,
    )
    def make(self, kind: str, watch_near: Wish | None, watch_far: Wish | None) -> None:
        if "pipe" in kind and Capability.PIPES not in self.course.capabilities:
            return
        if "unix" in kind and not hasattr(socket, "AF_UNIX"):
            return
        near, far = self.new("near"), self.new("far")
        self.take("make", kind, near, far)
        for name, wish in (near, watch_near), (far, watch_far):
            if wish is not None:
                self.take("register", name, wish)

    @precondition(has_room)
    @rule(kind=st.sampled_from(["listener", "net-listener"]), watch=st.none() | wishes)
    def listen(self, kind: str, watch: Wish | None) -> None:
        name = self.new("listener")
        self.take("listen", kind, name)
        if watch is not None:
            self.take("register", name, watch)

    @precondition(lambda self: self.has_room() and self.course.sockets())
    @rule(index=index)
    def duplicate(self, index: int) -> None:
        self.take("duplicate", self.pick("duplicate", index), self.new("dup"))

    @precondition(lambda self: self.course.open())
    @rule(index=index)
    def close(self, index: int) -> None:
        self.take("close", self.pick("close", index))

    @precondition(lambda self: self.course.resettable())
    @rule(index=index)
    def reset(self, index: int) -> None:
        self.take("reset", self.pick("reset", index))

    # -- I/O -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.course.writers())
    @rule(index=index, size=sizes)
    def write(self, index: int, size: int) -> None:
        self.take("write", self.pick("write", index), size)

    @precondition(lambda self: self.course.readers())
    @rule(index=index, size=sizes)
    def read(self, index: int, size: int) -> None:
        self.take("read", self.pick("read", index), size)

    @precondition(lambda self: self.course.readers())
    @rule(index=index)
    def drain(self, index: int) -> None:
        self.take("drain", self.pick("drain", index))

    @precondition(lambda self: self.course.urgeable())
    @rule(index=index)
    def urge(self, index: int) -> None:
        self.take("urge", self.pick("urge", index))

    @precondition(lambda self: self.course.fillable())
    @rule(index=index)
    def fill(self, index: int) -> None:
        self.take("fill", self.pick("fill", index))

    @precondition(lambda self: self.course.readers())
    @rule(index=index, size=sizes)
    def refill(self, index: int, size: int) -> None:
        """Drain and write anew between two waits, which a backend that samples does not see (EDG-05)."""
        reader = self.pick("drain", index)
        self.take("drain", reader)
        for writer in sorted(self.course.peers(reader) & {*self.course.writers()})[:1]:
            self.take("write", writer, size)

    @precondition(lambda self: self.course.fillable())
    @rule(index=index)
    def make_room(self, index: int) -> None:
        """The same the other way (EDG-07)."""
        writer = self.pick("fill", index)
        self.take("fill", writer)
        for reader in sorted(self.course.peers(writer) & {*self.course.readers()})[:1]:
            self.take("drain", reader)

    @precondition(lambda self: self.course.listeners())
    @rule(index=index)
    def knock(self, index: int) -> None:
        self.take("knock", self.pick("knock", index))

    @precondition(lambda self: self.course.shuttable())
    @rule(index=index)
    def half_close(self, index: int) -> None:
        self.take("half_close", self.pick("half_close", index))

    # -- registering ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.course.free())
    @rule(index=index, wish=wishes)
    def register(self, index: int, wish: Wish) -> None:
        self.take("register", self.pick("register", index), wish)

    @precondition(lambda self: self.course.registered())
    @rule(index=index, wish=wishes)
    def reregister(self, index: int, wish: Wish) -> None:
        self.take("reregister", self.pick("reregister", index), wish)

    @precondition(lambda self: self.course.registered())
    @rule(index=index)
    def rearm(self, index: int) -> None:
        self.take("rearm", self.pick("rearm", index))

    @precondition(lambda self: self.course.registered())
    @rule(index=index)
    def deregister(self, index: int) -> None:
        self.take("deregister", self.pick("deregister", index))

    @rule(
        step=st.sampled_from(["register_twice", "refuse_unknown", "refuse_closed", "deregister_closed"]),
        method=st.sampled_from(["register", "reregister", "rearm"]),
        index=index,
        wish=wishes,
    )
    def refuse(self, step: str, method: str, index: int, wish: Wish) -> None:
        if POOLS[step](self.course):
            unknown = "deregister" if method == "register" else method
            arguments = {"register_twice": (wish,), "refuse_unknown": (unknown,), "refuse_closed": (method,)}
            self.take(step, self.pick(step, index), *arguments.get(step, ()))

    # -- waiting -------------------------------------------------------------------------------------------

    @rule(max_events=st.sampled_from([1024, 1, 2]), wakes=st.sampled_from([0, 0, 0, 1, 2]))
    def wait(self, max_events: int, wakes: int) -> None:
        self.take("wait", max_events, wakes)

    @precondition(lambda self: self.rests < RESTS)
    @rule()
    def rest(self) -> None:
        self.rests += 1
        self.take("rest")

    @precondition(lambda self: self.course.open())
    @rule(method=st.sampled_from(["register", "rearm", "reregister", "deregister", "write"]), index=index, wish=wishes)
    def during_a_wait(self, method: str, index: int, wish: Wish) -> None:
        if POOLS[method](self.course):
            argument = {"register": (wish,), "reregister": (wish,), "write": (1,)}.get(method, ())
            self.take("during_a_wait", method, (self.pick(method, index), *argument))


def shortened(finding: Finding, begin: Callable[[], Course], until: float) -> Finding:
    """Leave out steps as long as the same rule is broken without them, until the time is over."""
    size = len(finding.steps) // 2
    while size:
        before = len(finding.steps)
        # From the end: what is made first is used by what comes later.
        for start in reversed(range(0, before, size)):
            if time.monotonic() > until:
                return finding
            steps = finding.steps[:start] + finding.steps[start + size :]
            other = retraced(steps, begin())
            if other is not None and other.is_hang:
                return finding  # there is one alarm for all of this
            if other is not None and other.rules & finding.rules:
                finding = other
        if len(finding.steps) == before:
            size //= 2
    return finding


def retraced(steps: Sequence[Step], course: Course) -> Finding | None:
    """Take those of *steps* that are possible, and give what is found."""
    try:
        with course:
            for step in steps:
                if course.can(step):
                    course.take(step)
    except NoFault:
        pass
    except Finding as finding:
        return finding
    return None


class Machines(Harness):
    """Random steps, judged by a model of the contract and by another backend."""

    forgiven: ClassVar[Collection[str]] = ()
    """The rules, besides those of ``known_failures``, of which a failure ends a row and no more."""

    @pytest.mark.parametrize("seed", SEEDS, ids="seed-{}".format)
    def test_machine_keeps_the_contract(self, seed: int) -> None:
        """Take some thousand steps, and see that no wait says what the model rules out."""
        self.run_machine(seed, [self.backend])

    @pytest.mark.parametrize("seed", SEEDS_SIDE_BY_SIDE, ids="seed-{}".format)
    def test_machine_agrees_with_another_backend(self, seed: int) -> None:
        """Take the same steps on two backends, and hold against one what it leaves out and the other reports."""
        # One of ours, so that the verdict does not hang on what else is installed.
        others = [
            name
            for name in ("poll", *BUILT_IN)
            if name != self.backend_name and load_backend(name).unavailable_reason() is None
        ]
        if not others:
            pytest.skip("there is no other backend here to compare with")
        self.run_machine(seed, [self.backend, others[0]])

    def run_machine(self, begin: int, backends: Sequence[str | type[Backend]]) -> None:
        """Run rows of steps on *backends*, the first of which is under test, and raise the shortest failure."""
        findings: list[Finding] = []
        courses: list[Course] = []
        known = {*self.known_failures, *self.forgiven}
        end = time.monotonic() + ENOUGH

        def new_course(patience: float = PATIENCE) -> Course:
            polls = [self.new_poll(), *map(Poll[object], backends[1:])]
            courses.append(Course(list(zip(backends, polls, strict=True)), known, patience))
            return courses[-1]

        @seed(begin)
        def machine() -> Machine:
            late = time.monotonic() - end
            if findings or (late > 0 and any(course.weighed for course in courses)) or late > SIGNAL_WAIT:
                raise OutOfTime
            return Machine(new_course(), findings)

        try:
            run_state_machine_as_test(machine, settings=SETTINGS)  # type: ignore[arg-type]  # any factory will do
        except (Finding, OutOfTime, Unsatisfiable, Flaky):
            # A failure; a slow machine; each row came to a known failure; the kernel took another turn the second time.
            pass
        if findings:
            finding = findings[0]
            if not finding.is_hang:
                finding = shortened(finding, lambda: new_course(4 * SILENCE), time.monotonic() + SHORTENING)
            raise self.failure(finding.expectation, finding.observation, seed=str(begin), script=finding.script)
        if not any(course.weighed for course in courses):
            observation = f"not one, in {len(courses)} rows of steps"
            if known:
                pytest.skip(f"{', '.join(sorted(known))}, known to be broken, ended each row of steps at once")
            raise self.failure(
                "waits that report events, which can be held against the contract", observation, seed=str(begin)
            )


SETTINGS: Final = settings(
    max_examples=ROWS,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    derandomize=False,  # the seed does it
    phases=[Phase.generate],  # to shorten a course of steps one need not go back to how they were drawn
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=Verbosity.quiet,
    backend="hypothesis",
)
"""All that a profile could set: whoever runs the kit may have loaded any."""
