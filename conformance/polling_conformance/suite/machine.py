"""The machines: long rows of random steps over the whole interface, judged by the contract written as a program.

A rule's test looks at one promise in the situation that its author thought of. The machines look for situations
that nobody thought of: Hypothesis strings steps together (make a source, register, write, drain, close, wait, ...),
``polling_conformance.model`` says after each what the poll owes, and when a wait disagrees the row is cut down to the
shortest that still fails, and printed as a script.

``test_machine_keeps_the_contract`` judges one backend by the model. ``test_machine_agrees_with_another_backend`` takes
the same steps on two backends side by side, and holds against the one what the other does report: so it needs to
believe the model less.

How it is done:

  * A step is a line of Python, run in a namespace of its own (``World``). The script is what was run, by construction.
  * Which steps are possible depends on what was done before and never on what a wait returned, which may differ from
    run to run. So the same seed gives the same steps, on every machine.
  * What must be reported is waited for, at most ``SIGNAL_WAIT``, and only after the operating system itself, asked in
    another way, says that it holds. That nothing more comes is asked with a timeout of 0: nothing sleeps.
  * Once something has failed, waits are shorter, since the row that fails is tried again and again to shorten it; and
    the shortening has a time limit.

A failure of a rule that the backend is known to break (``known_failures``) ends a row and no more.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import groupby
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, reject, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from polling import Backend, Capability, Event, Interest, Mode, Poll, Waker, available_backends
from polling_conformance.harness import SIGNAL_WAIT, SILENCE, THOROUGH, Harness, RuleFailure, restart_limit
from polling_conformance.model import SMALL, Broken, Model, Registration
from polling_conformance.script import NAMES, Outcome, ready, standing_alone

__all__ = ["Machines"]

SEED: Final = int(os.environ.get("POLLING_CONFORMANCE_SEED", "1"))
"""Where the rows of steps begin. The default run is the same each time."""

ROUNDS: Final = 40 if THOROUGH else 4
"""How often Hypothesis starts afresh, each time from the next seed: it lingers on what it tried before."""

ROWS: Final = 100
"""Rows of steps in one round."""

STEPS: Final = 40
"""Steps in a row, at most."""

ENOUGH: Final = 240.0 if THOROUGH else 40.0
"""Seconds after which no further round begins. Only a slow backend or a busy machine comes so far."""

SHORTENING: Final = 60.0 if THOROUGH else 8.0
"""Seconds after the first failure, in which a shorter row is looked for that fails as well."""

IN_A_ROW: Final = 5
"""An event without a cause may be spurious (SPU-01). In so many waits running, on sources at rest, it is not."""

MOST_PAIRS: Final = 3


class Findings:
    """What the rows of one test have found so far: the failure with the fewest steps."""

    def __init__(self) -> None:
        self.failure: RuleFailure | None = None
        self.steps = 0
        self.until = 0.0

    @property
    def patience(self) -> float:
        """Seconds to wait for what must be reported, and is known to hold."""
        return SIGNAL_WAIT if self.failure is None else 4 * SILENCE

    @property
    def is_final(self) -> bool:
        return self.failure is not None and time.monotonic() > self.until

    def add(self, failure: RuleFailure, steps: int, shortening: float) -> None:
        """Keep *failure* if it took fewer steps, and allow so many seconds from the first one to find shorter ones."""
        if self.failure is None:
            self.until = time.monotonic() + shortening
        if self.failure is None or steps <= self.steps:
            self.failure, self.steps = failure, steps


class World:
    """One poll with its sources: where the lines of a script are run, and a model looks on."""

    def __init__(self, backend: str | type[Backend], poll: Poll[object], native_edge: bool) -> None:
        self.poll = poll
        self.backend = backend
        self.is_native = Capability.NATIVE_EDGE in poll.backend.capabilities
        self.lines: list[str] = []
        self.model = Model(native_edge=native_edge)
        self.names: dict[str, Any] = {
            **NAMES,
            "Interest": Interest,
            "Mode": Mode,
            "socket": socket,
            "poll": poll,
            "waker": Waker(poll, "waker"),
        }
        self.handed_out: list[Event[object]] = []

    def run(self, line: str, *results: str) -> Any:
        """Run a line, an expression, and give its value, under the names *results*, too."""
        self.lines.append(f"{', '.join(results)} = {line}" if results else line)
        value = eval(line, self.names)
        if results:
            self.names |= {results[0]: value} if len(results) == 1 else dict(zip(results, value, strict=True))
        return value

    def io(self, line: str) -> Outcome:
        """Run a line of I/O, and note how it went."""
        outcome: Outcome = self.run(line)
        self.lines[-1] += f"  # {outcome.amount} {outcome.ending}".rstrip()
        return outcome

    def expect(self, outcomes: str, rules: str, call: str) -> None:
        """Run a call of the poll that raises one of *outcomes*, names of errors, or nothing: "-"."""
        if outcomes == "-":
            self.must(rules, call)
            return
        function, _, arguments = call.partition("(")
        raised = self.run(f"attempt({function}, {arguments}")
        if (raised or "-") not in outcomes.split():
            raise Broken(rules, f"{call} gives {outcomes.replace(' ', ' or ')}", raised or "no error")

    def must(self, rules: str, call: str) -> Any:
        """Run a call of the poll that must not raise."""
        try:
            return self.run(call)
        except RuleFailure:  # the alarm
            raise
        except Exception as error:
            raise Broken(rules, f"{call} succeeds", repr(error)) from error

    def wait(self, timeout: float, max_events: int) -> list[Event[object]]:
        """Wait once, and note what came."""
        return self.events(f"poll.poll({timeout:.3g}, {max_events})")

    def wake(self) -> None:
        """Wake the poll."""
        self.must("WAK-04", "waker.wake()")
        self.model.woken = True

    def ends(self, patience: float) -> bool:
        """Tell whether the wait in the other thread ends by itself."""
        # Patience may be short where the kernel has the answer already; a thread must get its turn first.
        ended: bool = self.run(f"waiting.ends({max(patience, SIGNAL_WAIT / 10):.3g})")
        return ended

    def join(self) -> list[Event[object]]:
        """End the wait in the other thread, and note what came."""
        return self.events("waiting.result()")

    def events(self, line: str) -> list[Event[object]]:
        """Run a line that gives the events of a wait, and note them."""
        batch: list[Event[object]] = self.must("REG-11 REG-19", line)
        self.lines[-1] = f"print({line})  # {batch}"
        self.handed_out = [*self.handed_out, *batch][-20:]
        return batch

    def close(self) -> None:
        """Close the poll and every source."""
        self.poll.close()
        for name in list(self.model.files):
            self.names[name].close()
        self.names.clear()
        self.handed_out.clear()

    def script(self) -> str:
        """Give what was run, as a script."""
        name = self.backend if isinstance(self.backend, str) else self.backend.__qualname__
        head = [f'poll = Poll("{name}")']
        if not isinstance(self.backend, str):
            head = [f"from {self.backend.__module__} import {name}", "", f"poll = Poll({name})"]
        waker = ['waker = Waker(poll, "waker")'] if any("waker" in line for line in self.lines) else []
        lines: list[str] = []
        for line, same in groupby(self.lines):
            times = len(list(same))
            lines += [f"for _ in range({times}):", f"    {line}"] if times > 2 else [line] * times
        return standing_alone([*head, *waker, *lines, "poll.close()"])

    # -- waiting -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until the operating system agrees that everything holds which the model takes to hold."""
        current = self.model.current()
        for token, bits in self.model.owed().items():
            for bit in bits if token in current else ():
                if not ready(self.names[current[token].name], bit, SIGNAL_WAIT):
                    raise RuntimeError(f"{token} is not {bit} for the operating system: {self.lines}")

    def collect(self, max_events: int, patience: float) -> dict[str, set[str]]:
        """Wait until everything owed was reported, or patience ends; give what is missing.

        With a small *max_events* that takes many waits, but not any number: nobody is starved (CAP-02).
        """
        self.settle()
        missing = self.model.owed()
        begin, waits = time.monotonic(), 0
        enough = 8 * len(missing) + 16
        while missing:
            elapsed = time.monotonic() - begin
            if elapsed >= patience or (waits >= enough and elapsed >= SILENCE):
                break
            waits += 1
            batch = self.wait(patience, max_events)
            self.model.judge(batch, max_events)
            current = self.model.current()
            for event in batch:
                token = str(event.token)
                left = missing.get(token, set()) - {bit for bit in ("readable", "writable") if getattr(event, bit)}
                if not left or (token in current and current[token].is_disarmed):
                    missing.pop(token, None)
                else:
                    missing[token] = left
        return missing

    def be_quiet(self) -> None:
        """See that what was reported is not reported again without end, and what is gone not at all."""
        repeated: set[str] = set()
        for turn in range(IN_A_ROW):
            batch = self.wait(0, 1024)
            seldom = self.model.judge(batch, 1024)
            repeated = repeated & seldom if turn else seldom
            if not repeated:
                break
            for registration in [self.model.current()[token] for token in repeated]:
                if registration.is_disarmed:  # it has had its event; so have it look again
                    self.run(f"poll.rearm({registration.name})")
                    self.model.rearmed(registration.name)
        else:
            for registration in [self.model.current()[token] for token in repeated]:
                self._blame(registration, batch)
        self.check_currency()

    def _blame(self, registration: Registration, batch: Sequence[Event[object]]) -> None:
        name, file, mode = registration.name, registration.file, registration.mode
        for event in batch:
            for bit in ("readable", "writable") if event.token == registration.token else ():
                if not getattr(event, bit):
                    continue
                if mode is Mode.EDGE and bit not in registration.armed:
                    rules, why = "EDG-03 SPU-01", "it has been, and nothing has happened since"
                elif not ready(self.names[name], bit, 0):
                    rules, why = "LVL-02 LVL-03 ONE-06 SPU-01", f"a call would block: {file.unread} bytes to read"
                else:
                    continue  # the operating system says so as well: TCP had more room than it seemed
                raise Broken(
                    rules, f"{name} ({mode.name}) is not reported {bit}, since {why}", f"{event}, in each wait"
                )

    def check_currency(self) -> None:
        """See that events are current as long as their registration is, and no longer."""
        for event in self.handed_out:
            if event.token in self.model.over and self.poll.is_current(event):
                reason = self.model.over[str(event.token)]
                raise Broken("REG-17", f"{event} is not current, since {reason}", "is_current says True")


class Machine(RuleBasedStateMachine):
    """The steps. Each is taken in every world; what is possible is the same in all of them."""

    def __init__(self, test: Machines, findings: Findings, backends: Sequence[str | type[Backend]]) -> None:
        super().__init__()
        self.test = test
        self.findings = findings
        self.steps = 0
        self.serial = 0
        self.is_over = False
        self.closed: list[str] = []
        self.worlds: list[World] = []
        restart_limit()
        if findings.is_final:
            self.fail()
        polls = [test.new_poll(), *map(Poll[object], backends[1:])]
        native_edge = all(Capability.NATIVE_EDGE in poll.backend.capabilities for poll in polls)
        self.pipes = all(Capability.PIPES in poll.backend.capabilities for poll in polls)
        self.worlds = [World(backend, poll, native_edge) for backend, poll in zip(backends, polls, strict=True)]

    @property
    def model(self) -> Model:
        """What all worlds have in common is in each one's model."""
        return self.worlds[0].model

    def fail(self) -> None:
        """Raise the best failure so far. There is one line for this, by which Hypothesis knows it for the same."""
        assert self.findings.failure is not None
        raise self.findings.failure.with_traceback(None)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Take a step, and turn what breaks the contract into the test's failure."""
        self.steps += 1
        try:
            yield
            return
        except Broken as broken:
            self.is_over = True
            if self.test.known_failures.keys() & set(broken.rules):
                reject()
            failure = self.test.failure(
                broken.expectation,
                f"{broken.observation}\n\nseed {SEED}, and a script that does it:\n\n{self.script()}",
            )
            shortening = SHORTENING
        except RuleFailure as alarm:  # which ends what hangs, and is not to be heard twice
            self.is_over = True
            hang = str(alarm).rpartition("observed: ")[2]
            failure = self.test.failure("each call returns", f"{hang}\n\nseed {SEED}, and a script:\n\n{self.script()}")
            shortening = 0.0
        self.findings.add(failure, self.steps, shortening)
        self.fail()

    def script(self) -> str:
        return self.worlds[0].script()

    def pick(self, index: int, names: Sequence[str]) -> str:
        return names[index % len(names)]

    def teardown(self) -> None:
        try:
            if self.worlds and not self.is_over:
                with self.step():
                    self.look(1024)
        finally:
            for world in self.worlds:
                world.close()

    def look(self, max_events: int) -> None:
        """Wait until everything owed is there, and see that nothing else is."""
        missing = [world.collect(max_events, self.findings.patience) for world in self.worlds]
        blamed = missing[0]
        if len(missing) > 1:  # only what the other backend did report
            blamed = {token: bits - missing[1].get(token, set()) for token, bits in blamed.items()}
        for token, bits in blamed.items():
            if bits:
                raise self.unreported(token, bits)
        for world in self.worlds:
            with self.judging(world):
                world.be_quiet()

    def unreported(self, token: str, bits: set[str]) -> Broken:
        if token == "waker":
            return Broken("WAK-01 WAK-03", "the waker is reported", "it is not")
        registration = self.model.current()[token]
        rules = {
            Mode.LEVEL: "LVL-01 LVL-04 REG-14",
            Mode.EDGE: "EDG-01 EDG-02 EDG-05 EDG-07 EDG-15 EDG-16",
            Mode.ONESHOT: "ONE-02 ONE-04 ONE-10",
            Mode.EDGE_ONESHOT: "ONE-04 ONE-09",
        }[registration.mode]
        also = f", as {self.worlds[1].poll.backend.name} reports it after the same steps" if self.worlds[1:] else ""
        what = " and ".join(sorted(bits))
        return Broken(
            f"{rules} EVT-01",
            f"{token!r} ({registration.name}, {registration.mode.name}) is reported {what}{also}",
            f"it is not, within {self.findings.patience:.3g} s, though a call would not block",
        )

    # -- sources -------------------------------------------------------------------------------------------

    index = st.integers(0, 5)
    interests = st.sampled_from([Interest.READABLE, Interest.WRITABLE, Interest.READ_WRITE])
    modes = st.sampled_from(list(Mode))

    @precondition(lambda self: len(self.model.files) < 2 * MOST_PAIRS)
    @rule(
        kind=st.sampled_from(["unix", "net-unix", "tcp", "net-tcp", "pipe", "net-pipe", "udp", "net-udp"]),
        watch_near=st.none() | st.tuples(interests, modes),
        watch_far=st.none() | st.tuples(interests, modes),
    )
    def make(
        self, kind: str, watch_near: tuple[Interest, Mode] | None, watch_far: tuple[Interest, Mode] | None
    ) -> None:
        if ("pipe" in kind and not self.pipes) or ("unix" in kind and not hasattr(socket, "AF_UNIX")):
            return
        with self.step():
            self.serial += 1
            near, far = f"near{self.serial}", f"far{self.serial}"
            for world in self.worlds:
                ends = world.run(f"{kind.replace('-', '_')}()", near, far)
                world.model.made(kind, near, far, (ends[0].fileno(), ends[1].fileno()))
            for name, watch in (near, watch_near), (far, watch_far):
                if watch is not None:
                    self.register_one(name, *watch)

    def sockets(self) -> list[str]:
        return [name for name, file in self.model.files.items() if not file.is_pipe]

    @precondition(lambda self: self.sockets() and len(self.model.files) < 2 * MOST_PAIRS)
    @rule(index=index)
    def duplicate(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.sockets())
            self.serial += 1
            for world in self.worlds:
                duplicate = f"dup{self.serial}"
                world.run(f"duplicate({name})", duplicate)
                world.model.duplicated(name, duplicate, world.names[duplicate].fileno())

    @precondition(lambda self: self.model.files)
    @rule(index=index)
    def close(self, index: int) -> None:
        with self.step():
            name = self.pick(index, list(self.model.files))
            for world in self.worlds:
                world.run(f"{name}.close()")
                world.model.closed(name)
            self.closed.append(name)

    def resettable(self) -> list[str]:
        files = self.model.files.items()
        return [
            name
            for name, file in files
            if file.is_tcp and len(file.names) == 1 and not (file.shut or file.ended or file.was_reset or file.left)
        ]

    @precondition(lambda self: self.resettable())
    @rule(index=index)
    def reset(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.resettable())
            for world in self.worlds:
                world.run(f"reset({name})")
                world.model.reset(name)
            self.closed.append(name)

    # -- I/O -----------------------------------------------------------------------------------------------

    def writers(self) -> list[str]:
        return [name for name, file in self.model.files.items() if "reader" not in file.kind and not file.shut]

    def readers(self) -> list[str]:
        return [name for name, file in self.model.files.items() if "writer" not in file.kind]

    @precondition(lambda self: self.writers())
    @rule(index=index, size=st.integers(1, SMALL))
    def write(self, index: int, size: int) -> None:
        with self.step():
            self.write_to(self.pick(index, self.writers()), size)

    def write_to(self, name: str, size: int) -> None:
        for world in self.worlds:
            world.model.written(name, world.io(f"write({name}, {size})"))

    @precondition(lambda self: self.readers())
    @rule(index=index, size=st.integers(1, SMALL))
    def read(self, index: int, size: int) -> None:
        with self.step():
            name = self.pick(index, self.readers())
            for world in self.worlds:
                world.model.read(name, world.io(f"read({name}, {size})"))

    @precondition(lambda self: self.readers())
    @rule(index=index)
    def drain(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.readers())
            for world in self.worlds:
                world.model.read(name, world.io(f"drain({name})"), drained=True)

    def fillable(self) -> list[str]:
        return [name for name in self.writers() if not self.model.files[name].is_datagram]

    @precondition(lambda self: self.fillable())
    @rule(index=index)
    def fill(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.fillable())
            for world in self.worlds:
                world.model.written(name, world.io(f"fill({name})"))

    def shuttable(self) -> list[str]:
        files = self.model.files.items()
        return [
            name
            for name, file in files
            if not (file.is_pipe or file.is_datagram or file.shut or file.left or file.was_reset or file.doubtful)
        ]

    @precondition(lambda self: self.shuttable())
    @rule(index=index)
    def half_close(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.shuttable())
            for world in self.worlds:
                world.run(f"{name}.shutdown(socket.SHUT_WR)")
                world.model.half_closed(name)

    # -- registering ---------------------------------------------------------------------------------------

    def free(self) -> list[str]:
        return [name for name in self.model.files if name not in self.model.registrations]

    def registered(self) -> list[str]:
        return list(self.model.registrations)

    @precondition(lambda self: self.free())
    @rule(index=index, interest=interests, mode=modes)
    def register(self, index: int, interest: Interest, mode: Mode) -> None:
        with self.step():
            self.register_one(self.pick(index, self.free()), interest, mode)

    def register_one(self, name: str, interest: Interest, mode: Mode) -> None:
        token = self.new_token(name)
        if self.model.can_watch(name, mode):
            for world in self.worlds:
                world.expect("-", "REG-10 REG-12 REG-16 SRC-04", call("register", name, token, interest, mode))
                world.model.registered(name, token, interest, mode)
        elif not any(world.is_native for world in self.worlds):
            for world in self.worlds:
                world.expect("UnsupportedError", "REG-26", call("register", name, token, interest, mode))

    def new_token(self, name: str) -> str:
        self.serial += 1
        return f"{name}#{self.serial}"

    @precondition(lambda self: self.registered())
    @rule(index=index, interest=interests, mode=modes)
    def register_twice(self, index: int, interest: Interest, mode: Mode) -> None:
        with self.step():
            name = self.pick(index, self.registered())
            for world in self.worlds:
                world.expect("AlreadyRegisteredError", "REG-01 ONE-05", call("register", name, "again", interest, mode))

    @precondition(lambda self: self.registered())
    @rule(index=index, interest=interests | st.just(Interest.NONE), mode=modes)
    def reregister(self, index: int, interest: Interest, mode: Mode) -> None:
        with self.step():
            name = self.pick(index, self.registered())
            token = self.new_token(name)
            if self.model.can_watch(name, mode):
                for world in self.worlds:
                    world.expect("-", "REG-14 ONE-05", call("reregister", name, token, interest, mode))
                    world.model.reregistered(name, token, interest, mode)
            elif not any(world.is_native for world in self.worlds):
                for world in self.worlds:
                    world.expect("UnsupportedError", "REG-06 REG-26", call("reregister", name, token, interest, mode))

    @precondition(lambda self: self.registered())
    @rule(index=index)
    def rearm(self, index: int) -> None:
        with self.step():
            self.rearm_one(self.pick(index, self.registered()))

    def rearm_one(self, name: str) -> None:
        for world in self.worlds:
            world.expect("-", "ONE-05", f"poll.rearm({name})")
            world.model.rearmed(name)

    @precondition(lambda self: self.registered())
    @rule(index=index)
    def deregister(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.registered())
            for world in self.worlds:
                world.expect("-", "REG-15 ONE-05", f"poll.deregister({name})")
                world.model.deregistered(name)

    @precondition(lambda self: self.free())
    @rule(index=index)
    def deregister_twice(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.free())
            for world in self.worlds:
                world.expect("NotRegisteredError", "REG-02", f"poll.deregister({name})")

    @precondition(lambda self: self.closed)
    @rule(index=index)
    def deregister_closed(self, index: int) -> None:
        with self.step():
            name = self.pick(index, self.closed)
            for world in self.worlds:
                world.expect("- NotRegisteredError", "REG-09", f"poll.deregister({name})")
                world.model.deregistered(name)

    # -- waiting -------------------------------------------------------------------------------------------

    @rule(max_events=st.sampled_from([1024, 1, 2]), wakes=st.sampled_from([0, 0, 0, 1, 2]))
    def wait(self, max_events: int, wakes: int) -> None:
        with self.step():
            for world in self.worlds:
                for _ in range(wakes):
                    world.wake()
            self.look(max_events)

    @precondition(lambda self: self.model.files)
    @rule(change=st.sampled_from(["register", "rearm", "write"]), index=index, interest=interests, mode=modes)
    def change_during_a_wait(self, change: str, index: int, interest: Interest, mode: Mode) -> None:
        with self.step():
            if change == "register" and self.free():
                # A ghost's last event may come before the registration that ends it, so there is none of them here.
                with nullcontext() if self.model.ghosts else self.waiting():
                    self.register_one(self.pick(index, self.free()), interest, mode)
            elif change == "rearm" and self.registered():
                name = self.pick(index, self.registered())
                with self.waiting():
                    self.rearm_one(name)
                self.rearm_one(name)  # its event came before or after the first: now it is armed for certain
            elif self.writers():
                with self.waiting():
                    self.write_to(self.pick(index, self.writers()), 1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Have another thread wait meanwhile in each world; it must see what has changed (REG-18)."""
        for world in self.worlds:
            world.run("Waiting(poll)", "waiting")
        sighted: set[World] = set()
        blind: set[World] = set()
        try:
            yield
            for world in self.worlds:
                if world.model.owed():
                    (sighted if world.ends(self.findings.patience) else blind).add(world)
        finally:
            for world in self.worlds:
                if world not in sighted:
                    world.wake()
            batches = [world.join() for world in self.worlds]
        for world, batch in zip(self.worlds, batches, strict=True):
            with self.judging(world):
                owed = ", ".join(world.model.owed())
                world.model.judge(batch, 1024, settled=False)
                if world in blind:
                    self.look(1024)  # unless a wait that begins now is as blind
                    raise Broken("REG-18", f"the wait in progress reports {owed}", "only the next one does")

    @contextmanager
    def judging(self, world: World) -> Iterator[None]:
        """Hold what is wrong against the backend under test, and not against the other one."""
        with suppress(*([] if world is self.worlds[0] else [Broken])):
            yield


def call(method: str, name: str, token: str, interest: Interest, mode: Mode) -> str:
    """Spell a call of the poll."""
    spelled = "|".join(f"Interest.{flag.name}" for flag in interest) or "Interest.NONE"
    return f"poll.{method}({name}, {token!r}, {spelled.replace(' ', '')}, Mode.{mode.name})"


class Machines(Harness):
    """Random steps, judged by a model of the contract and by another backend."""

    def test_machine_keeps_the_contract(self) -> None:
        """Take some thousand steps, and see that no wait says what the model rules out."""
        self.run_machine([self.backend])

    def test_machine_agrees_with_another_backend(self) -> None:
        """Take the same steps on two backends, and hold against one what only the other reports."""
        others = [name for name in available_backends() if name != self.backend_name]
        if not others:
            pytest.skip("there is no other backend here to compare with")
        self.run_machine([self.backend, others[-1]])

    def run_machine(self, backends: Sequence[str | type[Backend]]) -> None:
        """Run rows of steps on *backends*, the first of which is under test, and raise the shortest failure."""
        findings = Findings()
        begin = time.monotonic()
        for turn in range(ROUNDS):
            if findings.failure is not None or time.monotonic() > begin + ENOUGH:
                break

            @seed(SEED + turn)
            def machine() -> Machine:
                return Machine(self, findings, backends)

            try:
                run_state_machine_as_test(machine, settings=SETTINGS)  # type: ignore[arg-type]  # any factory will do
            except Unsatisfiable:
                pass  # each row came to a known failure
            except Exception:
                # Hypothesis raises what it was told by ``Machine.fail``, or that a row failed once and not again.
                if findings.failure is None:
                    raise
        if findings.failure is not None:
            raise findings.failure.with_traceback(None) from None


SETTINGS: Final = settings(
    max_examples=ROWS,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    derandomize=False,  # the seed does it
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=Verbosity.quiet,
    backend="hypothesis",
)
"""All that a profile could set: whoever runs the kit may have loaded any."""
