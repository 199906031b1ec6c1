"""The table behind a Poll: who is registered under which number, and the events made for them so far.

Three facts shape it.

An event is the same object as long as the same thing is reported of the same registration, so it can
be looked up by the raw pair that the kernel gave, and is current as long as it is found there. Then
``[*map(table.__getitem__, batch)]`` is the whole dispatch, in C. Python code runs only for a pair that was
not seen before, in ``__missing__``, and for a backend that cannot tell a closed number from one used again,
in ``checked``.

A registration is a weak reference: the poll keeps no source alive, and a source that is dropped is closed
and so deregistered. Making the reference itself carry the fields saves an object a registration. When
a source dies its token must go at once; its number may stay in the table until somebody stumbles over
it, because a dead entry counts as none. So the reference's callback needs no lock, and may come at
any moment in any thread, as callbacks of the garbage collector do.

A pair that was fetched before another thread changed the registration of its number may speak of the
old or of the new one. So a registration that was completed during a wait is not *settled* until the next
wait begins. A pair of one that is not settled is dropped, and the backend looks again.

Rules: REG-10, REG-15, REG-16, REG-17, GCL-02, GCL-03.
"""

from __future__ import annotations

import weakref
from _thread import RLock  # importing threading takes a millisecond

from polling._typing import TYPE_CHECKING
from polling.event import Event, Interest, Mode
from polling.user import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final, TypeAlias

    from polling.backend import Backend, HasFileno, Pair, Source  # noqa: F401  # HasFileno is named in a string
    from polling.errors import PollingError
    from polling.user import UserRegistration


_EDGE: Final = Mode.EDGE
_LEVEL: Final = Mode.LEVEL


class Registration(weakref.ref["HasFileno"]):
    """A source that is watched, held weakly, and all that was said of it."""

    __slots__ = ("fd", "interest", "mode", "pairs", "settled", "token")

    fd: int
    token: Any
    interest: Interest
    mode: Mode
    settled: bool
    pairs: tuple[Pair, ...]  # under which the table holds events of this registration

    def is_live(self) -> bool:
        """Tell whether the source is there, open, and still has the number it was registered under."""
        source = self()
        return source is not None and number_of(source) == self.fd


class HeldRegistration:
    """The same for what has no weak references, has no identity, or asked to be kept: it is held."""

    __slots__ = ("fd", "interest", "mode", "pairs", "settled", "source", "token")

    fd: int
    token: Any
    interest: Interest
    mode: Mode
    settled: bool
    pairs: tuple[Pair, ...]

    def __init__(self, source: Source) -> None:
        self.source = source

    def __call__(self) -> Source:
        return self.source

    def is_live(self) -> bool:
        """Tell whether the source still has its number. A bare number always has."""
        return number_of(self.source) == self.fd


AnyRegistration: TypeAlias = Registration | HeldRegistration

OWN: Final = HeldRegistration(-1)
OWN.fd, OWN.token, OWN.interest, OWN.mode, OWN.settled, OWN.pairs = -1, None, Interest.NONE, Mode.LEVEL, True, ()
"""What stands in the table under the numbers of the poll itself: taken, and nobody's source."""


def number_of(source: object) -> int:
    """Give the descriptor of *source*, -1 if it is closed or has none: the question, not the check."""
    if type(source) is int:
        return source
    try:
        number = source.fileno()  # type: ignore[attr-defined]  # that it has none is one of the answers
    except Exception:
        # Each library has an error of its own for a closed object. A signal handler's does not come twice.
        try:
            source.fileno()  # type: ignore[attr-defined]  # as above
        except Exception:
            return -1
        raise
    return number if type(number) is int else -1


class Table(dict["Pair", "Event[Any] | None"]):
    """Registrations by number, events by pair, and what a wait must know of them. Knows no Poll.

    The dict itself is the cache of events; everything else is an attribute.
    """

    __slots__ = (
        "alert",
        "backend",
        "cut_off",
        "doubtful",
        "fetch",
        "gaps",
        "lock",
        "nearest",
        "own",
        "pending",
        "refusal",
        "registrations",
        "removed",
        "stale",
        "strays",
        "timed",
        "unsettled",
        "users",
        "woken",
    )

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.own: Final = frozenset(backend.internal)
        self.lock = RLock()
        self.registrations: dict[int, AnyRegistration] = dict.fromkeys(backend.internal, OWN)
        self.refusal: type[PollingError] | None = None  # why every call is refused, once it is
        self.fetch: Iterator[Sequence[Pair]] | None = iter(())  # the wait; None while somebody has it
        self.cut_off: Sequence[Pair] = ()  # a batch that an exception kept from being handed out
        self.alert = False  # the waiter must look at one of the following, or at the refusal
        self.gaps = False  # beside that, there are pairs in the batch that are no events
        self.stale = False  # beside that, the backend's waiter is to be asked for anew
        self.unsettled: list[AnyRegistration] = []  # made during this wait
        self.removed = False  # something was deregistered during this wait, which explains strays
        self.strays: list[int] = []  # numbers that turned up and are nobody's
        self.doubtful: list[Pair] = []  # pairs of registrations that changed during the wait
        # Of user-space sources, each a set in the order of arrival: a dict takes and drops a key without a call.
        self.users: dict[UserRegistration, None] = {}  # all that are registered
        self.timed: dict[UserRegistration, None] = {}  # those of them that have a deadline
        self.nearest = NEVER  # no deadline of theirs is before this one
        self.pending: dict[UserRegistration, None] = {}  # what may have something to say: set by any thread
        self.woken: dict[UserRegistration, None] = {}  # what the waiter has taken up of it, until that is handed out

    def __missing__(self, pair: Pair) -> Event[Any] | None:
        """Make the event for a pair not seen before, or say why there is none: None and an alert."""
        if pair[0] in self.own:  # the doorbell, which a backend may ring for itself, too
            self.alert = self.gaps = True
            return None
        fd, bits = pair
        with self.lock:
            registration = self.registrations.get(fd)
            source = registration and registration()  # held, so that it cannot die before this is done
            if registration is None or source is None:
                self.alert = self.gaps = self.stale = True
                self.strays.append(fd)
                return None
            if not registration.settled:
                self.alert = self.gaps = self.stale = True
                self.doubtful.append(pair)
                self.unsettled.append(registration)  # again, in case an exception came before it was noted
                return None
            readiness = self.backend.decode(bits, registration.interest)
            if not (readiness.readable or readiness.writable or readiness.priority):
                self.alert = self.gaps = self.stale = True  # the backend owes a promised bit; what has none is no event
                return None
            event: Event[Any] = Event(registration.token, readiness, pair)
            # A signal handler may have changed or removed the registration by now. From here on there is no call.
            if registration.settled and fd in self.registrations and self.registrations[fd] is registration:
                registration.pairs += (pair,)
                self[pair] = event
                return event
            self.alert = self.gaps = self.stale = True
            self.doubtful.append(pair)
            return None

    def checked(self, pair: Pair) -> Event[Any] | None:
        """Look *pair* up, for a backend that reports whatever has the number now."""
        event = self[pair]
        if event is None:
            return None
        registration = self.registrations.get(pair[0])
        if registration is None or not registration.is_live():
            self.alert = self.gaps = self.stale = True
            self.strays.append(pair[0])
            return None
        return event

    def settle(self, registration: AnyRegistration) -> None:
        """Count a registration, complete now, as settled: from the next wait on, if there is one in progress."""
        if self.fetch is None:
            self.unsettled.append(registration)
            self.alert = True
        else:
            registration.settled = True

    def forget(self, registration: AnyRegistration) -> None:
        """Let go of the token and the events of a registration that is over. Also the weak callback."""
        registration.token = None
        self.outdate(registration)

    def outdate(self, registration: AnyRegistration) -> dict[Pair, Event[Any] | None]:
        """Let go of the events of a registration: they are not current any more. Gives them by pair."""
        # The pairs go last: cut off by a signal handler's exception, this can be done again.
        events = {pair: self.pop(pair) for pair in registration.pairs if pair in self}
        registration.pairs = ()
        return events

    # -- user space ----------------------------------------------------------------------------------------

    def enlist(self, registration: UserRegistration, former: UserRegistration | None = None) -> None:
        """Take up a user-space source in place of what it was registered as before; nothing once all is refused."""
        source = registration.source
        # From here on there is no call.
        if self.refusal is not None:
            return
        source._registration = registration
        if former in self.users:
            del self.users[former]
        if former in self.timed:
            del self.timed[former]
        self.users[registration] = None
        if source._deadline is not None:
            self.timed[registration] = None
            if source._deadline < self.nearest:
                self.nearest = source._deadline
        self.pending[registration] = None
        self.alert = True

    def discharge(self, registration: UserRegistration) -> None:
        """Let go of a user-space source, and of the events made for it."""
        source = registration.source
        # From here on there is no call.
        if source._registration is registration:
            source._registration = None
        if registration in self.users:
            del self.users[registration]
        if registration in self.timed:
            del self.timed[registration]
        if registration in self.pending:
            del self.pending[registration]
        if registration in self.woken:
            self.woken = {**self.woken}  # another, since the waiter may be going through this one
            del self.woken[registration]
        registration.events = [None] * 8

    def hear(self) -> list[Event[Any] | None]:
        """Take what user-space sources have to say: they stand in ``woken`` until it is handed out.

        A wake takes this way while somebody waits for it, so there is no lock, and few objects are made. What is
        pending is taken as a whole, by a swap; after that nobody adds to it or takes from it.
        """
        heard: list[Event[Any] | None] = []
        self.woken = pending = self.pending
        self.pending = {}
        for registration in pending:
            source = registration.source
            ready = registration.armed & source._ready
            if ready and source._registration is registration:
                heard.append(registration.events[ready] or registration.make_event(ready))
                # From here to the next one there is no call.
                if registration.mode is _LEVEL:
                    self.pending[registration] = None  # it concerns the next wait as well
                    self.alert = True
                else:
                    registration.armed = registration.armed & ~ready if registration.mode is _EDGE else 0
        return heard

    def pass_time(self, now: float) -> None:
        """Set what is due by now, and find the nearest of the deadlines to come."""
        self.nearest = NEVER  # first: a deadline that another thread sets from here on is compared with this
        try:
            for registration in [*self.timed]:
                source = registration.source
                if source._deadline is not None and source._deadline <= now and source._is_due(now):
                    source._ready |= 1
                    registration.stir(1)
                    source._deadline = NEVER  # until it is asked what has expired
                if source._deadline is not None and source._deadline < self.nearest:
                    self.nearest = source._deadline
        except BaseException:  # a signal handler's
            self.nearest = 0.0  # so that this is done again
            raise

    def hear_again(self) -> None:
        """Have that looked at again which an exception kept from being handed out."""
        for registration in self.woken:
            if registration.source._registration is registration:
                registration.armed = registration.interest
                self.pending[registration] = None
        self.woken = {}
