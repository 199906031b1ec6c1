"""A course of steps through one poll, or two side by side: each is taken, and what the polls say to it is judged.

A step is a line of Python, or a few, run in a namespace of its own (``World``): so the script that a failure prints
is what was run, by construction. Which steps are possible depends on what was done before and never on what a
wait returned, which may differ from run to run.

What must be reported is waited for, at most ``patience`` seconds, and only after the operating system itself, asked in
another way, says that it holds. That nothing more comes is asked with a timeout of 0: nothing sleeps.

``suite.machine`` draws the steps.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

from polling import Backend, Capability, Event, Interest, Mode, Poll, Waker
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.failure import RuleFailure
from polling_conformance.model import BITS, Broken, Model, Registration
from polling_conformance.script import NAMES, Outcome, ready, standing_alone

__all__ = ["PATIENCE", "POOLS", "Course", "Finding", "NoFault", "Step", "Wish"]

PATIENCE: Final = 0.5 * SIGNAL_WAIT
"""Seconds to wait for what must be reported."""

IN_A_ROW: Final = 5
"""An event without a cause may be spurious (SPU-01). In so many waits running, on sources at rest, it is not."""

Wish: TypeAlias = tuple[Interest, Mode]
"""What to register for."""


class Step(NamedTuple):
    """A method of ``Course``, and what to call it with."""

    method: str
    arguments: tuple[Any, ...]


class Finding(Exception):
    """A step after which the poll under test broke the contract.

    Attributes:
        rules: Those that it broke; none if a call did not return.
        expectation: What was expected.
        observation: What was seen instead.
        script: A program that does it again.
        steps: The course so far, with that step at its end.
    """

    def __init__(self, rules: Collection[str], expectation: str, observation: str, script: str, steps: list[Step]):
        super().__init__(expectation, observation)
        self.rules = frozenset(rules)
        self.expectation = expectation
        self.observation = observation
        self.script = script
        self.steps = steps

    @property
    def is_hang(self) -> bool:
        """Whether a call did not return, so that it is better not made again."""
        return not self.rules


class NoFault(Exception):
    """The course cannot be gone on, and the poll under test is not to blame for what it has not said yet."""


class World:
    """One poll with its sources: where the lines of a script are run, and a model looks on."""

    def __init__(self, backend: str | type[Backend], poll: Poll[object]) -> None:
        self.poll = poll
        self.backend = backend
        self.lines: list[str] = []
        self.model = Model(poll.backend.capabilities)
        self.names: dict[str, Any] = {
            **NAMES,
            "Interest": Interest,
            "Mode": Mode,
            "socket": socket,
            "poll": poll,
            "waker": Waker(poll, "waker"),
        }
        self.handed_out: list[Event[object]] = []
        self.said: dict[str, set[str]] = {}  # the bits that were reported since the last look began, by token

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
        for event in batch:
            self.said.setdefault(str(event.token), set()).update(bits_of(event))
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
        imports = []
        backend, front = self.backend, type(self.poll)
        if not isinstance(backend, str):
            imports.append(f"from {backend.__module__} import {backend.__qualname__}")
        if front is not Poll:
            imports.append(f"from {front.__module__} import {front.__qualname__}")
        argument = repr(backend) if isinstance(backend, str) else backend.__qualname__
        head = [*imports, "", f"poll = {front.__qualname__}({argument})"]
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

    def collect(self, missing: dict[str, set[str]], max_events: int, patience: float) -> dict[str, set[str]]:
        """Wait until what is *missing* was reported, or patience ends; give what still is.

        With a small *max_events* that takes many waits, but not any number: nobody is starved (CAP-02).
        """
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
                left = missing.get(token, set()) - bits_of(event)
                if not left or (token in current and current[token].is_disarmed):
                    missing.pop(token, None)
                else:
                    missing[token] = left
        return missing

    def look(self, max_events: int, patience: float) -> None:
        """Wait until everything owed is there, and see that nothing else is.

        Raises:
            Broken: Something is missing, or should not be there.
        """
        self.settle()
        self.said.clear()
        for token, bits in self.collect(self.model.owed(), max_events, patience).items():
            raise self.unreported(token, bits, patience, "a call would not block")
        self.be_quiet()

    def agree(self, other: World, patience: float) -> None:
        """See that this one reports what the other has reported, where the model is unsure.

        The two have sources of their own, which may differ. So the operating system must say of this one's, too,
        that it is ready.
        """
        unsure = {
            token: {bit for bit in bits & other.said.get(token, set()) if self.is_ready(token, bit)}
            for token, bits in self.model.unsure().items()
        }
        unsure = {token: bits - self.said.get(token, set()) for token, bits in unsure.items()}
        for token, bits in self.collect({t: bits for t, bits in unsure.items() if bits}, 1024, patience).items():
            bits = {bit for bit in bits if self.is_ready(token, bit)}
            if bits:
                name = other.poll.backend.name
                raise self.unreported(token, bits, patience, f"{name}, after the same steps, and the system say so")

    def is_ready(self, token: str, bit: str) -> bool:
        """Ask the operating system."""
        return ready(self.names[self.model.current()[token].name], bit, 0)

    def unreported(self, token: str, bits: set[str], patience: float, why: str) -> Broken:
        """Say that something is missing."""
        if token == "waker":
            return Broken("WAK-01 WAK-03", "the waker is reported", "it is not")
        registration = self.model.current()[token]
        rules = {
            Mode.LEVEL: "LVL-01 LVL-04 REG-14",
            Mode.EDGE: "EDG-01 EDG-02 EDG-05 EDG-07 EDG-11 EDG-12 EDG-15 EDG-16",
            Mode.ONESHOT: "ONE-02 ONE-04 ONE-10",
            Mode.EDGE_ONESHOT: "ONE-04 ONE-09",
        }[registration.mode]
        what = " and ".join(sorted(bits))
        return Broken(
            f"{rules} EVT-01",
            f"{token!r} ({registration.name}, {registration.mode.name}) is reported {what}",
            f"it is not, within {patience:.3g} s, though {why}",
        )

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

    def rest(self) -> None:
        """See that a wait with nothing to report sleeps."""
        for seconds in (SILENCE / 5, 2 * SILENCE):  # a busy machine may disturb one
            before = time.thread_time()
            batch = self.wait(seconds, 1024)
            self.model.judge(batch, 1024)
            busy = time.thread_time() - before
            if batch or busy < seconds / 2:
                return
        raise Broken(
            "INT-02 REG-11 WAK-02", "a wait with nothing to report sleeps", f"it takes {busy:.3f} s of processor time"
        )

    def _blame(self, registration: Registration, batch: Sequence[Event[object]]) -> None:
        name, file, mode = registration.name, registration.file, registration.mode
        for event in batch:
            for bit in bits_of(event) if event.token == registration.token else ():
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
        registered = {registration.token for registration in self.model.registrations.values()}
        for event in self.handed_out:
            token = str(event.token)
            is_current = self.poll.is_current(event)
            if token in self.model.over and is_current:
                reason = self.model.over[token]
                raise Broken("REG-17", f"{event} is not current, since {reason}", "is_current says True")
            if token in registered and not is_current:
                raise Broken("REG-17", f"{event} is current: nothing was changed since", "is_current says False")


def bits_of(event: Event[object]) -> set[str]:
    """Name what an event promises, for the directions that the model knows."""
    return {bit for bit in BITS if getattr(event, bit)}


class Course:
    """Polls, and the steps that were taken with them. What is possible is the same for all of them.

    Args:
        polls: A new poll on the backend under test, and perhaps one on another to compare it with; by what they are
            made from.
        known: The rules that the backend under test is known to break.
        patience: Seconds to wait for what must be reported.
    """

    def __init__(
        self,
        polls: Sequence[tuple[str | type[Backend], Poll[object]]],
        known: Collection[str] = (),
        patience: float = PATIENCE,
    ) -> None:
        self.capabilities = Capability(-1)
        for _, poll in polls:
            self.capabilities &= poll.backend.capabilities
        self.known = known
        self.patience = patience
        self.worlds = [World(backend, poll) for backend, poll in polls]
        self.at = self.worlds[0]
        self.steps: list[Step] = []
        self.weighed = 0  # the waits in which every poll reported a source
        self.closed: list[str] = []
        self._tokens = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for world in self.worlds:
            world.close()

    @property
    def model(self) -> Model:
        """What all worlds have in common is in each one's model."""
        return self.worlds[0].model

    def everywhere(self) -> Iterator[World]:
        """Give one world after the other, and keep in mind where we are."""
        for world in self.worlds:
            self.at = world
            yield world
        self.at = self.worlds[0]

    # -- taking steps --------------------------------------------------------------------------------------

    def can(self, step: Step) -> bool:
        """Tell whether a step is possible now."""
        pool = POOLS.get(step.method)
        if pool is not None:
            return step.arguments[0] in pool(self)
        return step.method != "during_a_wait" or self.can(Step(*step.arguments))

    def take(self, step: Step) -> None:
        """Take a step that is possible.

        Raises:
            Finding: The poll under test breaks the contract.
            NoFault: The other poll does, or it was a rule that is known to be broken. The course is over.
        """
        self.steps.append(step)
        try:
            getattr(self, step.method)(*step.arguments)
        except Broken as broken:
            if self.at is not self.worlds[0] or set(self.known) & set(broken.rules):
                raise NoFault from None
            raise self._finding(broken.rules, broken.expectation, broken.observation) from None
        except RuleFailure as alarm:
            raise self._finding((), "each call returns", alarm.observation) from None

    def _finding(self, rules: Collection[str], expectation: str, observation: str) -> Finding:
        ending = [f"# expected: {expectation}", f"# observed: {observation}"]
        script = "\n".join([self.worlds[0].script(), *ending, ""])
        return Finding(rules, expectation, observation, script, self.steps)

    # -- sources -------------------------------------------------------------------------------------------

    def make(self, kind: str, near: str, far: str) -> None:
        for world in self.everywhere():
            ends = world.run(f"{kind.replace('-', '_')}()", near, far)
            world.model.made(kind, near, far, (ends[0].fileno(), ends[1].fileno()))

    def listen(self, kind: str, name: str) -> None:
        for world in self.everywhere():
            world.model.listening(kind, name, world.run(f"{kind.replace('-', '_')}()", name).fileno())

    def sockets(self) -> list[str]:
        files = self.model.files.items()
        return [name for name, file in files if not (file.is_pipe or file.kind.startswith("io-"))]

    def duplicate(self, name: str, duplicate: str) -> None:
        for world in self.everywhere():
            world.run(f"duplicate({name})", duplicate)
            world.model.duplicated(name, duplicate, world.names[duplicate].fileno())

    def open(self) -> list[str]:
        return list(self.model.files)

    def close(self, name: str) -> None:
        for world in self.everywhere():
            world.run(f"{name}.close()")
            world.model.closed(name)
        self.closed.append(name)

    def shut(self) -> list[str]:
        return self.closed

    def resettable(self) -> list[str]:
        files = self.model.files.items()
        return [
            name
            for name, file in files
            if file.is_tcp and len(file.names) == 1 and not (file.shut or file.ended or file.was_reset or file.left)
        ]

    def reset(self, name: str) -> None:
        for world in self.everywhere():
            world.run(f"reset({name})")
            world.model.reset(name)
        self.closed.append(name)

    # -- I/O -----------------------------------------------------------------------------------------------

    def writers(self) -> list[str]:
        files = self.model.files.items()
        return [name for name, file in files if not (file.is_listener or file.shut or "reader" in file.kind)]

    def write(self, name: str, size: int) -> None:
        for world in self.everywhere():
            world.model.written(name, world.io(f"write({name}, {size})"))

    def urgeable(self) -> list[str]:
        files = self.model.files.items()
        return [name for name, file in files if file.is_tcp and not (file.peer.urged or file.shut or file.left)]

    def urge(self, name: str) -> None:
        for world in self.everywhere():
            world.model.urged(name, world.io(f"urge({name})"))

    def fillable(self) -> list[str]:
        return [name for name in self.writers() if not self.model.files[name].is_datagram]

    def fill(self, name: str) -> None:
        for world in self.everywhere():
            world.model.written(name, world.io(f"fill({name})"))

    def readers(self) -> list[str]:
        return [name for name, file in self.model.files.items() if "writer" not in file.kind]

    def read(self, name: str, size: int) -> None:
        line = f"accept({name})" if self.model.files[name].is_listener else f"read({name}, {size})"
        for world in self.everywhere():
            world.model.read(name, world.io(line))

    def drain(self, name: str) -> None:
        line = f"accept_all({name})" if self.model.files[name].is_listener else f"drain({name})"
        for world in self.everywhere():
            world.model.read(name, world.io(line), drained=True)

    def peers(self, name: str) -> set[str]:
        return self.model.files[name].peer.names

    def listeners(self) -> list[str]:
        return [name for name, file in self.model.files.items() if file.is_listener]

    def knock(self, name: str) -> None:
        for world in self.everywhere():
            world.run(f"knock({name})")
            world.model.knocked(name)

    def shuttable(self) -> list[str]:
        files = self.model.files.items()
        return [
            name
            for name, file in files
            if file.is_duplex and not (file.shut or file.left or file.was_reset or file.doubtful)
        ]

    def half_close(self, name: str) -> None:
        for world in self.everywhere():
            world.run(f"{name}.shutdown(socket.SHUT_WR)")
            world.model.half_closed(name)

    # -- registering ---------------------------------------------------------------------------------------

    def free(self) -> list[str]:
        return [name for name in self.model.files if name not in self.model.registrations]

    def registered(self) -> list[str]:
        return list(self.model.registrations)

    def register(self, name: str, wish: Wish) -> None:
        token = self._new_token(name)
        line = call("register", name, token, wish)
        able = self._able(name, wish)
        for world in self.everywhere():
            if all(able):
                world.expect("-", "REG-10 REG-12 REG-16 INT-02 INT-06 SRC-04", line)
                world.model.registered(name, token, *wish)
            elif not any(able):
                world.expect("UnsupportedError", "REG-26", line)

    def _able(self, name: str, wish: Wish) -> list[bool]:
        """Tell of each world whether a source can be watched so. Where they differ, it is left alone."""
        return [world.model.can_watch(name, *wish) for world in self.worlds]

    def _new_token(self, name: str) -> str:
        self._tokens += 1
        return f"{name}#{self._tokens}"

    def register_twice(self, name: str, wish: Wish) -> None:
        for world in self.everywhere():
            world.expect("AlreadyRegisteredError", "REG-01 ONE-05", call("register", name, "again", wish))

    def reregister(self, name: str, wish: Wish) -> None:
        token = self._new_token(name)
        line = call("reregister", name, token, wish)
        able = self._able(name, wish)
        for world in self.everywhere():
            if all(able):
                world.expect("-", "REG-14 ONE-05", line)
                world.model.reregistered(name, token, *wish)
            elif not any(able):
                world.expect("UnsupportedError", "REG-06 REG-26", line)

    def rearm(self, name: str) -> None:
        for world in self.everywhere():
            world.expect("-", "ONE-05", call("rearm", name))
            world.model.rearmed(name)

    def deregister(self, name: str) -> None:
        for world in self.everywhere():
            world.expect("-", "REG-15 ONE-05", call("deregister", name))
            world.model.deregistered(name)

    def refuse_unknown(self, name: str, method: str) -> None:
        for world in self.everywhere():
            world.expect("NotRegisteredError", "REG-02 REG-03", call(method, name, "unknown"))

    def deregister_closed(self, name: str) -> None:
        for world in self.everywhere():
            world.expect("- NotRegisteredError", "REG-09", call("deregister", name))
            world.model.deregistered(name)

    def refuse_closed(self, name: str, method: str) -> None:
        for world in self.everywhere():
            world.expect("InvalidSourceError", "REG-05", call(method, name, "closed"))

    # -- waiting -------------------------------------------------------------------------------------------

    def wait(self, max_events: int, wakes: int) -> None:
        for world in self.everywhere():
            for _ in range(wakes):
                world.wake()
        for world in self.everywhere():
            world.look(max_events, self.patience)
        for other in self.worlds[1:]:
            self.worlds[0].agree(other, self.patience)
        self.weighed += all(world.said.keys() - {"waker"} for world in self.worlds)

    def rest(self) -> None:
        self.wait(1024, 0)
        for world in self.everywhere():
            if not world.model.owed():
                world.rest()

    def during_a_wait(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Take a step while another thread waits, which must see what has changed: REG-18."""
        # A ghost's last event may come before the registration that ends it, so there is none of them then.
        with nullcontext() if method == "register" and self.model.ghosts else self._waiting():
            getattr(self, method)(*arguments)
        if method == "rearm":
            self.rearm(*arguments)  # its event came before or after the first: now it is armed for certain

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Have another thread wait meanwhile in each world; it must see what has changed (REG-18)."""
        before = [world.model.current() for world in self.worlds]
        for world in self.everywhere():
            world.run("Waiting(poll)", "waiting")
        sighted: set[World] = set()
        blind: set[World] = set()
        try:
            yield
            for world in self.everywhere():
                if world.model.owed():
                    (sighted if world.ends(self.patience) else blind).add(world)
        finally:
            for world in self.worlds:
                if world not in sighted:
                    world.wake()
            batches = [world.join() for world in self.worlds]
        for world, batch, then in zip(self.everywhere(), batches, before, strict=True):
            owed = ", ".join(token for token in world.model.owed() if token != "waker")
            world.model.judge(batch, 1024, during=then)
            if world in blind:
                world.look(1024, self.patience)  # unless a wait that begins now is as blind
                raise Broken("REG-18", f"the wait in progress reports {owed}", "only the next one does")


POOLS: Final[Mapping[str, Callable[[Course], list[str]]]] = {
    "duplicate": Course.sockets,
    "close": Course.open,
    "reset": Course.resettable,
    "write": Course.writers,
    "urge": Course.urgeable,
    "fill": Course.fillable,
    "read": Course.readers,
    "drain": Course.readers,
    "knock": Course.listeners,
    "half_close": Course.shuttable,
    "register": Course.free,
    "register_twice": Course.registered,
    "reregister": Course.registered,
    "rearm": Course.registered,
    "deregister": Course.registered,
    "refuse_unknown": Course.free,
    "deregister_closed": Course.shut,
    "refuse_closed": Course.shut,
}
"""The steps that need a source, and the sources that can be used for each."""


def call(method: str, name: str, token: str = "", wish: Wish = (Interest.READABLE, Mode.LEVEL)) -> str:
    """Spell a call of the poll."""
    if method in ("deregister", "rearm"):
        return f"poll.{method}({name})"
    interest, mode = wish
    spelled = "|".join(f"Interest.{flag.name}" for flag in interest) or "Interest.NONE"
    return f"poll.{method}({name}, {token!r}, {spelled}, Mode.{mode.name})"
