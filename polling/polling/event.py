"""The vocabulary: what a caller asks for (Interest, Mode) and what a wait hands out (Event).

Interest and Mode are integers because every registration looks something up by them, and the operators
of an ``IntFlag`` cost about half a microsecond each: a tuple indexed by the member costs twenty
nanoseconds. Readiness is what a backend decodes from the kernel's bits; Event is what the caller sees.
They are two types because a backend knows nothing of tokens.
"""

from __future__ import annotations

from collections import namedtuple
from enum import STRICT, IntEnum, IntFlag

from polling._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from typing import NamedTuple, NoReturn

__all__ = ["Event", "Interest", "Mode", "Readiness"]


class Interest(IntFlag, boundary=STRICT):
    """What to watch a source for.

    ``NONE`` is legal: the source stays registered and is silent, hangups included, until it is
    reregistered. ``PRIORITY`` is out-of-band data, where the backend has ``Capability.PRIORITY``.

    Rules: INT-01, INT-02, INT-04, INT-08.
    """

    NONE = 0
    READABLE = 1
    WRITABLE = 2
    READ_WRITE = 3
    PRIORITY = 4


class Mode(IntEnum):
    """How often a condition is reported. A mode belongs to the whole registration.

    LEVEL: at every wait, while the condition holds.
    EDGE: when the condition arises. After an event do the I/O until it would block; then the next
        readiness is reported, never zero times. New data on top of unread data may report again or not.
    ONESHOT: once; then the registration is disarmed, in both directions, until ``rearm`` or ``reregister``.
    EDGE_ONESHOT: as ONESHOT, and each arming is a fresh look: a condition that holds then is reported.

    Rules: LVL, EDG and ONE.
    """

    LEVEL = 0
    EDGE = 1
    ONESHOT = 2
    EDGE_ONESHOT = 3

    def __or__(self, other: object) -> NoReturn:
        """Refuse: modes are alternatives, and a silent integer would be a wrong mode later."""
        raise TypeError("modes do not combine with '|': for edge and oneshot together use Mode.EDGE_ONESHOT")

    __ror__ = __or__


if TYPE_CHECKING:

    class _Bits(NamedTuple):
        readable: bool = False
        writable: bool = False
        priority: bool = False
        error: bool = False
        read_closed: bool = False
        write_closed: bool = False

else:
    _Bits = namedtuple("_Bits", "readable writable priority error read_closed write_closed", defaults=[False] * 6)


class Readiness(_Bits):
    """What a backend read from the kernel's bits for one descriptor, within the interest asked for.

    The first three are promises: a hangup, an error or an end of stream sets each of them that is in
    the interest, and none outside the interest is ever set. The last three are hints: true means
    certain, false means not known.
    """

    __slots__ = ()


class Event(Generic[T]):
    """One source is ready. Immutable, and comparable by identity only.

    Two waits may hand out the same object when they report the same thing. The readiness bits are
    promises that the next call of that kind will not block, or did not when the kernel was asked; the
    hints are never falsely true, and may be missing (see ``Poll.backend.capabilities``).

    Attributes:
        token: What the source was registered under, the very object.
        readable: A read, an accept or a receive has something to say: data, end of stream, or an error.
        writable: A write or a send has: room, or an error; a connect has finished, well or not.
        priority: Out-of-band data.
        error: Hint: an error is pending on the source.
        read_closed: Hint: the peer sends nothing more. Data may still be there to read.
        write_closed: Hint: nothing can be written any more.

    Rules: EVT-01 to EVT-22, INT-04, MRG-01.
    """

    __slots__ = (
        "_key",
        "error",
        "priority",
        "read_closed",
        "readable",
        "token",
        "writable",
        "write_closed",
    )

    token: T
    readable: bool
    writable: bool
    priority: bool
    error: bool
    read_closed: bool
    write_closed: bool
    _key: object  # the pair under which the poll's table holds it while it is current, or the waker

    def __init__(self, token: T, readiness: Readiness, key: object = None) -> None:
        store = object.__setattr__
        store(self, "token", token)
        store(self, "_key", key)
        for name, value in zip(readiness._fields, readiness, strict=True):
            store(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Event is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Event is immutable: cannot delete {name!r}")

    def __copy__(self) -> Event[T]:
        return self  # it is immutable, and nothing but itself

    def __deepcopy__(self, _memo: object) -> Event[T]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Event cannot be pickled: it means something to its own poll only")

    def __repr__(self) -> str:
        said = " ".join(name for name in Readiness._fields if getattr(self, name))
        return f"<Event {self.token!r}: {said}>"
