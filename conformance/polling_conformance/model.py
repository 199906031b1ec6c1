"""What a poll owes, at each moment, for all that was done to it and to its sources: the contract as a program.

A model knows the sources as the operating system has them (``File``), and what is registered for them
(``Registration``). It does no I/O: whoever drives it does something and tells it how that went. For each bit of
each registration it then has one of four answers (``Verdict``), and it judges what a wait returned by them.

Where the contract leaves an outcome open, so does the model. It never asks for what a right backend need not give:

  * Readiness comes in four degrees (``Truth``). A socket that has taken something and is not full may or may not be
    called writable (INT-11); neither is held against anybody. Whether an error has come back is for the operating
    system to tell.
  * An edge is *armed* by registering and by I/O that would block, and is used up by a report. What is armed and
    holds must be reported; new data on top of old may be (EDG-06).
  * A report without any cause may happen now and then (SPU-01), so by itself it proves nothing. The same one
    again and again, while nothing happens, is a fault; whoever drives the model watches for that.
  * But what is removed, parked, replaced or disarmed is never reported, nor is a bit outside the interest, and a hint
    is never false.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from polling import Capability, Event, Interest, Mode
from polling_conformance.script import Outcome

__all__ = ["BITS", "Broken", "File", "Model", "Registration", "Truth", "Verdict"]

BITS: Final[Mapping[str, Interest]] = {
    "readable": Interest.READABLE,
    "writable": Interest.WRITABLE,
    "priority": Interest.PRIORITY,
}
HINTS: Final[Mapping[str, Capability]] = {
    "read_closed": Capability.READ_CLOSED,
    "write_closed": Capability.WRITE_CLOSED,
    "error": Capability.ERROR,
}
ONE_EVENT: Final = (Mode.ONESHOT, Mode.EDGE_ONESHOT)
CERTAIN_ROOM: Final = 16
"""So many small writes, of ``SMALL`` bytes at most, fit into any buffer that was empty before."""
SMALL: Final = 64


class Truth(Enum):
    """Whether a condition holds."""

    NO = auto()
    OPEN = auto()  # it may be called either
    UNSURE = auto()  # the operating system knows
    YES = auto()


class Verdict(Enum):
    """What may become of one bit of one registration in the next wait."""

    MUST = auto()
    MAY = auto()
    SELDOM = auto()  # nothing accounts for it: now and then, SPU-01
    NEVER = auto()


class Broken(Exception):
    """An observation that the contract rules out."""

    def __init__(self, rules: str, expectation: str, observation: str) -> None:
        super().__init__(rules, expectation, observation)
        self.rules = rules.split()
        self.expectation = f"{expectation} ({', '.join(self.rules)})"
        self.observation = observation


@dataclass(eq=False)
class File:
    """One end of a connection, as all duplicates of its descriptor share it."""

    kind: str
    names: set[str]
    unread: int = 0  # bytes, or datagrams, or connections to accept
    written: int = 0  # how many writes since the peer had read everything
    full: bool = False  # a write would have blocked, and the peer has read nothing since
    ended: bool = False  # the peer sends no more
    left: bool = False  # the peer is closed
    was_reset: bool = False
    failed: bool = False  # a call has raised the error, which is gone with that
    shut: bool = False  # sends no more, by its own choice
    urged: bool = False  # there was an urgent byte, and it may be there still
    doubtful: bool = False  # an error is on its way, or not: after writing to a peer that has left
    peer: File = field(init=False)

    @property
    def is_pipe(self) -> bool:
        return "pipe" in self.kind

    @property
    def is_datagram(self) -> bool:
        return "udp" in self.kind

    @property
    def is_tcp(self) -> bool:
        return "tcp" in self.kind

    @property
    def is_duplex(self) -> bool:
        return not (self.is_pipe or self.is_datagram or self.is_listener)

    @property
    def is_listener(self) -> bool:
        return "listener" in self.kind

    def condition(self, bit: str) -> Truth:
        """Tell whether a call in this direction would return at once, with data, room, an end or an error."""
        return {"readable": self._readable, "writable": self._writable, "priority": self._urgent}[bit]()

    def _readable(self) -> Truth:
        if self.unread or self.ended or self.was_reset:
            return Truth.YES
        if self.doubtful:
            return Truth.UNSURE
        return Truth.OPEN if self.is_pipe and self.left else Truth.NO  # a pipe's writer may call a hangup readable

    def _writable(self) -> Truth:
        if self.was_reset:
            return Truth.OPEN if self.failed else Truth.YES
        if self.shut:
            return Truth.OPEN
        if self.doubtful:
            return Truth.UNSURE
        if self.is_listener or (self.is_pipe and not self.left and "reader" in self.kind):
            return Truth.NO
        if self.left and not self.is_tcp and not self.is_datagram:
            return Truth.OPEN if "reader" in self.kind else Truth.YES
        if self.full:
            return Truth.NO
        if self.is_datagram or not self.written:
            return Truth.YES
        return Truth.YES if self.written <= CERTAIN_ROOM and self.peer.unread <= CERTAIN_ROOM * SMALL else Truth.OPEN

    def _urgent(self) -> Truth:
        if self.was_reset:
            return Truth.OPEN if self.failed else Truth.YES
        if self.urged or self.doubtful:
            return Truth.UNSURE
        return Truth.OPEN if self.ended or self.left or self.shut else Truth.NO

    def false_hints(self) -> set[str]:
        """Name the hints that would not be true: EVT-04, EVT-06, EVT-14."""
        hints = set()
        if not (self.ended or self.was_reset or self.doubtful or (self.is_pipe and self.left)):
            hints.add("read_closed")  # of a pipe's writer true, if pointless, when its reader is gone
        if not (self.shut or self.was_reset or self.doubtful or (self.left and not self.is_tcp)):
            hints.add("write_closed")
        if not (self.was_reset or self.doubtful or (self.left and not self.is_datagram)):
            hints.add("error")
        return hints

    def due_hints(self, interest: Interest) -> set[str]:
        """Name the hints that a backend which has them must give: EVT-04, EVT-06."""
        hints = set()
        if self.is_duplex and not self.doubtful and not (self.is_tcp and self.unread):  # TCP may be on its way still
            if self.ended and Interest.READABLE in interest:
                hints.add("read_closed")
            if self.was_reset and not self.failed and Interest.READ_WRITE in interest:
                hints.add("write_closed")
        return hints


@dataclass(eq=False)
class Registration:
    """What was asked for one descriptor, and which of it is armed."""

    name: str
    file: File
    token: str
    interest: Interest
    mode: Mode
    armed: set[str] = field(init=False)
    reticent: bool = False  # whether its last event lacked a hint that was due
    is_ghost: bool = False  # it is closed, but a duplicate keeps it in the kernel, for a while or for good (REG-13)

    def __post_init__(self) -> None:
        self.arm()

    def arm(self) -> None:
        """Look at everything afresh, as registering does: ONE-04, EDG-01, EDG-02."""
        self.armed = {bit for bit, interest in BITS.items() if interest & self.interest}

    @property
    def is_disarmed(self) -> bool:
        return self.mode in ONE_EVENT and not self.armed

    def verdict(self, bit: str) -> Verdict:
        """Say what may become of *bit* in the next wait."""
        if not BITS[bit] & self.interest or self.is_disarmed:
            return Verdict.NEVER
        truth = self.file.condition(bit)
        if self.is_ghost:
            return Verdict.MAY
        if truth is Truth.NO or (self.mode is Mode.EDGE and bit not in self.armed):
            return Verdict.SELDOM
        return Verdict.MUST if truth is Truth.YES else Verdict.MAY

    def owed(self) -> set[str]:
        """Name the bits that must be reported."""
        return {bit for bit in BITS if self.verdict(bit) is Verdict.MUST}

    def used_up(self, bits: Collection[str]) -> None:
        """Take note of a report."""
        if self.mode in ONE_EVENT:
            self.armed.clear()
        elif self.mode is Mode.EDGE:
            self.armed.difference_update(bits)


class Model:
    """One poll, a waker, and the sources. Each name is that of a descriptor."""

    def __init__(self, capabilities: Capability) -> None:
        self.capabilities = capabilities
        self.native_edge = Capability.NATIVE_EDGE in capabilities
        self.files: dict[str, File] = {}
        self.numbers: dict[str, int] = {}
        self.registrations: dict[str, Registration] = {}
        self.ghosts: dict[str, Registration] = {}
        self.over: dict[str, str] = {}  # tokens that must not come again, and why
        self.haunted: set[int] = set()  # numbers that were registered anew over a ghost
        self.woken = False

    # -- what was done -------------------------------------------------------------------------------------

    def made(self, kind: str, near: str, far: str, numbers: tuple[int, int]) -> None:
        one = File(kind + "-reader" if "pipe" in kind else kind, {near})
        other = File(kind + "-writer" if "pipe" in kind else kind, {far})
        one.peer, other.peer = other, one
        self.files |= {near: one, far: other}
        self.numbers |= dict(zip((near, far), numbers, strict=True))

    def listening(self, kind: str, name: str, number: int) -> None:
        file = File(kind, {name})
        file.peer = File("nobody", set())
        self.files[name] = file
        self.numbers[name] = number

    def duplicated(self, name: str, duplicate: str, number: int) -> None:
        file = self.files[name]
        file.names.add(duplicate)
        self.files[duplicate] = file
        self.numbers[duplicate] = number

    def can_watch(self, name: str, interest: Interest, mode: Mode) -> bool:
        """Tell whether this is to be had for this source: REG-26, EDG-17, INT-08."""
        if Interest.PRIORITY in interest and Capability.PRIORITY not in self.capabilities:
            return False
        reports = self.files[name].kind.startswith(("net-", "io-")) and not name.startswith("dup")
        return mode is not Mode.EDGE or self.native_edge or reports

    def registered(self, name: str, token: str, interest: Interest, mode: Mode) -> None:
        for ghost in [ghost for ghost in self.ghosts if self.numbers[ghost] == self.numbers[name]]:
            self._lay(ghost, f"its number was registered again, for {name}")
            self.haunted.add(self.numbers[name])
        self.registrations[name] = Registration(name, self.files[name], token, interest, mode)

    def reregistered(self, name: str, token: str, interest: Interest, mode: Mode) -> None:
        self.over[self.registrations[name].token] = f"{name} was reregistered under another token"
        self.registrations[name] = Registration(name, self.files[name], token, interest, mode)

    def rearmed(self, name: str) -> None:
        self.registrations[name].arm()

    def deregistered(self, name: str) -> None:
        if name in self.ghosts:
            self._lay(name, f"{name} was closed and deregistered")
        elif name in self.registrations:
            self.over[self.registrations.pop(name).token] = f"{name} was deregistered"

    def closed(self, name: str) -> None:
        file = self.files.pop(name)
        file.names.discard(name)
        registration = self.registrations.pop(name, None)
        if registration is not None:
            if file.names and registration.interest:
                registration.is_ghost = True
                self.ghosts[name] = registration
            else:
                self.over[registration.token] = f"{name} was closed"
        if file.names:
            return
        for ghost in [ghost for ghost, registration in self.ghosts.items() if registration.file is file]:
            self._lay(ghost, "the last duplicate was closed")
        if registration is not None and registration.interest and self.numbers[name] in self.haunted:
            # Closed before a wait could lay the ghost that its number had: whose news may now be taken for its own.
            self.over.pop(registration.token)
            registration.is_ghost = True
            self.ghosts[name] = registration
        peer = file.peer
        peer.left = True
        if not file.is_datagram:
            peer.ended = peer.ended or not (file.is_pipe and "reader" in file.kind)
            peer.doubtful |= file.is_tcp and (file.unread > 0 or file.urged)  # TCP resets then

    def reset(self, name: str) -> None:
        peer = self.files[name].peer
        self.closed(name)
        peer.was_reset = True

    def half_closed(self, name: str) -> None:
        file = self.files[name]
        file.shut = True
        file.peer.ended = True

    def knocked(self, name: str) -> None:
        self.files[name].unread += 1

    def written(self, name: str, outcome: Outcome) -> None:
        file = self.files[name]
        self._tell(name, "writable", outcome)
        if outcome.amount:
            file.written += 1 + outcome.amount // SMALL
            if file.left:
                file.doubtful = True
            else:
                file.peer.unread += 1 if file.is_datagram else outcome.amount
        if outcome.ending == "would block":
            file.full = True

    def urged(self, name: str, outcome: Outcome) -> None:
        file = self.files[name]
        self._tell(name, "writable", outcome)
        if outcome.amount:
            file.written += 1
            file.peer.urged = True

    def read(self, name: str, outcome: Outcome, *, drained: bool = False) -> None:
        file = self.files[name]
        self._tell(name, "readable", outcome)
        if file.is_datagram or file.is_listener:
            file.unread = 0 if drained else max(0, file.unread - (outcome.amount > 0))
        else:
            file.unread = max(0, file.unread - outcome.amount)
        if outcome.amount:
            file.peer.full = False
        if not file.unread and not file.peer.full:
            file.peer.written = 0

    def _tell(self, name: str, bit: str, outcome: Outcome) -> None:
        """Take note of how I/O ended: a would-block arms the edges, an error is over once it was raised."""
        file = self.files[name]
        if outcome.ending == "would block":
            for other in file.names if self.native_edge else {name}:
                registration = self.registrations.get(other)
                if registration is not None and registration.mode is Mode.EDGE and BITS[bit] & registration.interest:
                    registration.armed.add(bit)
        elif outcome.ending not in ("", "end of stream"):
            file.failed = True
            file.doubtful |= file.was_reset or file.is_tcp or file.is_datagram

    def _lay(self, ghost: str, reason: str) -> None:
        self.over[self.ghosts.pop(ghost).token] = reason

    # -- what a wait said ----------------------------------------------------------------------------------

    def owed(self) -> dict[str, set[str]]:
        """Give the bits that must be reported, by token."""
        owed = {registration.token: registration.owed() for registration in self.registrations.values()}
        if self.woken:
            owed["waker"] = {"readable"}
        return {token: bits for token, bits in owed.items() if bits}

    def unsure(self) -> dict[str, set[str]]:
        """Give the bits, by token, that must be reported if the operating system says that they hold."""
        unsure = {}
        for each in self.registrations.values():
            unsure[each.token] = {
                bit for bit in BITS if each.verdict(bit) is Verdict.MAY and each.file.condition(bit) is Truth.UNSURE
            }
        return {token: bits for token, bits in unsure.items() if bits}

    def current(self) -> dict[str, Registration]:
        """Give all registrations that may be reported, by token."""
        return {each.token: each for each in [*self.registrations.values(), *self.ghosts.values()]}

    def judge(
        self,
        batch: Sequence[Event[object]],
        max_events: int,
        *,
        during: Mapping[str, Registration] | None = None,
    ) -> set[str]:
        """Take note of what one wait returned, and name the tokens whose report nothing accounts for.

        Args:
            batch: The events.
            max_events: What the wait was asked for.
            during: If something was changed during the wait: what was registered when it began. The wait may have
                been too early for what is owed since, and late enough for what is over since.

        Raises:
            Broken: One of the events must not be, or one that must be there is not.
        """
        current = self.current()
        settled = during is None
        tokens = [str(event.token) for event in batch]
        sources = [token for token in tokens if token != "waker"]
        if len(sources) > max_events:
            raise Broken("CAP-01", f"at most {max_events} sources in a wait that asks for so many", f"{len(sources)}")
        if self.woken and settled and "waker" not in tokens:
            raise Broken("WAK-02 WAK-07", "a wake before a wait is in what the wait returns", f"it returned {batch}")
        seldom = set()
        for event in batch:
            token = str(event.token)
            if token == "waker":
                self._judge_wake(event)
                continue
            registration = current.get(token)
            if registration is None and during is not None and token in during:
                continue
            if registration is None:
                raise Broken(*self._reason(token), f"{event}")
            if self.numbers[registration.name] in self.haunted:
                self._judge_haunted(event, registration)
                continue
            if tokens.count(token) > 1:
                raise Broken("MRG-01", "one event for each registration in one wait", f"{batch}")
            if self._judge_event(event, registration, merged=settled and len(sources) < max_events):
                seldom.add(token)
        return seldom

    def _judge_wake(self, event: Event[object]) -> None:
        if not self.woken:
            raise Broken("WAK-02 WAK-03", "a waker is reported once for a wake, and not without one", f"{event}")
        if _said(event) != {"readable"}:
            raise Broken("WAK-09", "a wake is readable and nothing else", f"{event}")
        self.woken = False

    def _judge_haunted(self, event: Event[object], registration: Registration) -> None:
        """Judge what may be the news of a ghost that had the number: some waits report it, beside what is its own."""
        bits = _said(event) & BITS.keys()
        if not bits or any(not BITS[bit] & registration.interest for bit in bits):
            raise Broken("INT-04 EVT-01", f"bits of {registration.name}'s interest, one at least", f"{event}")
        registration.used_up(bits)

    def _judge_event(self, event: Event[object], registration: Registration, *, merged: bool) -> bool:
        said = _said(event)
        bits = said & BITS.keys()
        name = registration.name
        if not registration.interest:
            raise Broken("INT-01 INT-02", f"{name} is parked with Interest.NONE, and so silent", f"{event}")
        if registration.is_disarmed:
            raise Broken("ONE-01 ONE-02", f"{name} had its one event, and is silent until it is re-armed", f"{event}")
        verdicts = {registration.verdict(bit) for bit in bits}
        asked = registration.interest.name
        if not bits or Verdict.NEVER in verdicts:
            raise Broken("INT-04 EVT-01", f"bits of {name}'s interest {asked}, one at least", f"{event}")
        if not registration.is_ghost and said & registration.file.false_hints():
            raise Broken("EVT-04 EVT-06 EVT-14 SPU-02", f"no hint that is not true of {name}", f"{event}")
        self._judge_hints(event, registration, said & HINTS.keys())
        owed = registration.owed()
        if merged and registration.mode in ONE_EVENT and not owed <= bits:
            raise Broken("ONE-03", f"one event for all that {name} is ready for: {_spell(owed)}", f"{event}")
        registration.used_up(bits)
        return Verdict.SELDOM in verdicts

    def _judge_hints(self, event: Event[object], registration: Registration, said: set[str]) -> None:
        declared = {hint for hint, capability in HINTS.items() if capability in self.capabilities}
        if not said <= declared:
            raise Broken("EVT-04 EVT-06 EVT-14", f"no hints but those declared: {_spell(declared)}", f"{event}")
        lacking = registration.file.due_hints(registration.interest) & declared - said
        # One that says nothing may be spurious.
        if lacking and event.readable and registration.reticent and not registration.is_ghost:
            raise Broken("EVT-04 EVT-06", f"{_spell(lacking)} in the events of {registration.name}", f"{event}")
        registration.reticent = bool(lacking)

    def _reason(self, token: str) -> tuple[str, str]:
        if token in self.over:
            return "REG-10 REG-14 REG-15 REG-16", f"no event for {token!r}, since {self.over[token]}"
        return "EVT-22", f"tokens that were registered, and so not {token!r}"


def _said(event: Event[object]) -> set[str]:
    return {bit for bit in (*BITS, *HINTS) if getattr(event, bit)}


def _spell(bits: Collection[str]) -> str:
    return " and ".join(sorted(bits))
