"""What a backend owes: the abstract class behind which epoll, kqueue, poll(2) and strangers stand.

The house has three layers, and this page is the contract between the upper two:

    Poll      checks arguments, owns the table of registrations, locks, keeps deadlines, coalesces
              wakes, watches for close and fork. Written once.
    Backend   translates: an interest and a mode into what its facility understands, and the facility's
              answer back into a Readiness. Disarming after a oneshot and the bookkeeping of edges are
              its own, because facilities differ there most.
    façade    the few lines that touch the kernel, where there is something to separate.

What a backend may rely on, because ``Poll`` sees to it:

  * ``register``, ``reregister``, ``deregister``, ``waiter`` and ``close`` are never called at the same time
    as one another, and always with a number of at least 0, an Interest that is not empty, and a Mode.
  * ``register`` comes only for a number that is not registered, the other two only for one that is,
    as far as the table knows. The kernel may know better: numbers are closed and used again
    behind everybody's back. After a failure, and for a number that turned up unasked, ``deregister`` comes
    for one that may never have been registered.
  * One thread at a time is inside the waiter. The other calls may come from any thread meanwhile,
    and what they change holds for the wait in progress.
  * ``close`` is called when no other call but ``wake`` can be under way (nor ``rearm``, where edges are native),
    and once, unless an exception cuts it off: then once more.

What it owes in return:

  * A call that raises has changed nothing. ``OSError`` from the kernel may pass: ``Poll`` turns EBADF and
    EPERM into the library's errors, and swallows ENOENT and EBADF of a removal.
  * At most one pair for a descriptor in one batch, at most *max_events* pairs besides its own
    descriptors', and at least one if anything is ready.
  * Every pair that the waiter returns decodes to at least one bit inside the interest. A condition that
    does not must leave the facility's set, or the wait would spin on it.
  * The batch that the waiter returns is not forgotten on the way: CPython runs signal handlers between
    any two calls, and an exception from one must not lose what was fetched. A facility that consumes
    what it reports (an edge, a oneshot) is asked by one C call whose result the waiter returns as it is; an
    emulation changes its own books only when the next wait begins. What these books need is stored in the
    waiter's own frame, with no call between that and its return.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Flag, auto

from polling._typing import TYPE_CHECKING
from polling.user import UserSource

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import ClassVar, Protocol, TypeAlias

    from polling.event import Interest, Mode, Readiness
else:
    Protocol = object

__all__ = ["Backend", "Capability", "Pair", "Source", "Wait"]

Pair: TypeAlias = tuple[int, int]
"""A descriptor that is ready, and how, in bits that only the backend's ``decode`` understands."""

Wait: TypeAlias = "Callable[[float | None, int], Sequence[Pair]]"
"""``wait(timeout, max_events)``: seconds, or ``None`` for ever; at least 1. See ``Backend.waiter``."""


class HasFileno(Protocol):
    """An object with a descriptor."""

    def fileno(self) -> int:
        """Give the descriptor's number, or -1 once closed."""


Source: TypeAlias = HasFileno | int | UserSource
"""What can be registered: an object with ``fileno()``, a bare descriptor, or a source in user space.

A bare number has no identity. It counts as live until it is deregistered, whatever becomes of it.
"""


class Capability(Flag):
    """What backends may differ in. Declared by each, and checked by the conformance kit.

    What is declared must be so. What is not declared must be missing, where that can be told: without DUP_CLOSE,
    INTERRUPTIBLE and SUB_MS a backend may still do better at times.

    NATIVE_EDGE: ``Mode.EDGE`` works on any descriptor. Without it only sources that report would-blocks
        (``polling.net``, ``IoSource``) can be watched in EDGE; others are refused at ``register``.
    DUP_CLOSE: Closing a registered source while a duplicate of it lives ends its events.
    SHARED_SOURCE: One source can be registered in several polls.
    NESTED: ``Poll.fileno()`` exists, and is readable while the poll has events.
    PRIORITY: ``Interest.PRIORITY`` is reported, and so are hangups and errors to whoever asks for nothing else.
    SUB_MS: Timeouts are kept to better than a millisecond.
    INTERRUPTIBLE: A signal handler runs at once during a wait; without it, within 0.25 s.
    CHAR_DEVICES: Character devices such as ``/dev/null`` can be registered, and are always ready.
    TTY: Terminals and pseudo-terminals can be registered.
    PIPES: Pipes and FIFOs can be registered.
    READ_CLOSED, WRITE_CLOSED, ERROR: The hint of that name is given where the facility knows.
    """

    NATIVE_EDGE = auto()
    DUP_CLOSE = auto()
    SHARED_SOURCE = auto()
    NESTED = auto()
    PRIORITY = auto()
    SUB_MS = auto()
    INTERRUPTIBLE = auto()
    CHAR_DEVICES = auto()
    TTY = auto()
    PIPES = auto()
    READ_CLOSED = auto()
    WRITE_CLOSED = auto()
    ERROR = auto()


class Backend(ABC):
    """One readiness facility, made to look like all the others. An instance serves one ``Poll``.

    Subclasses are made without arguments. A constructor that raises leaves no descriptor open.
    """

    name: ClassVar[str]
    """What ``Poll(name)`` and messages call it: the facility's own name, in lower case."""

    capabilities: ClassVar[Capability]
    """What it can do on this platform."""

    forgets_closed: ClassVar[bool] = False
    """Whether the facility itself forgets a descriptor that is closed, and takes a re-used number for
    what it is. Where not, ``Poll`` asks each ready source whether it is still what was registered."""

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """Say in a phrase why this backend cannot run on this machine; ``None`` if it can.

        Imports nothing that may be missing, and opens nothing.
        """
        return None

    @property
    @abstractmethod
    def internal(self) -> Collection[int]:
        """Its own descriptors, all of them. ``Poll`` refuses to register them and drops their pairs.

        Fixed from construction until ``close``.
        """

    @abstractmethod
    def register(self, fd: int, interest: Interest, mode: Mode) -> None:
        """Begin to watch *fd*. A condition that already holds counts as arising now.

        Raises:
            OSError: The kernel refuses. EBADF for a closed descriptor, EPERM for a regular file or a directory, on
                every backend, whatever its facility says of them; ``Poll`` puts these two in its own words.
            UnsupportedError: The facility cannot watch this one, and the message says why. It is passed on as it is.
        """

    @abstractmethod
    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None:
        """Replace interest and mode of *fd*, both completely, and arm it anew, as ``register`` does.

        Raises:
            OSError: As ``register``. The former registration is intact.
        """

    @abstractmethod
    def deregister(self, fd: int) -> None:
        """Stop watching *fd*. No wait that begins after this call returned reports it.

        Also called for numbers that turned up in a batch without being registered.

        Raises:
            OSError: ENOENT or EBADF: it was not there any more.
        """

    @abstractmethod
    def rearm(self, fd: int, interest: Interest) -> None:
        """Look at *fd* again for these bits: report them if they hold now, or when they next do.

        Comes after a oneshot and after a batch that an exception cut off, with the whole interest, and where edges
        are emulated from each would-block, with the direction. Never blocks, ignores an *fd* it does not know.

        Threads: any. A backend without ``Capability.NATIVE_EDGE`` takes it without a lock, also from inside
        a signal handler, also after ``close``: it notes it, and kicks the waiter if there is one. For the
        others it is serialised like ``register``.
        """

    @abstractmethod
    def waiter(self) -> Wait:
        """Give the function that waits; the waiting thread asks before its first wait, and every so often.

        It asks again after an event that is nobody's, after a removal that met nothing to remove, after an exception,
        after some hundred waits, and when the function raises StopIteration instead of waiting. So this is where a
        backend may set its house in order between two waits, while nobody registers.

        The function takes a timeout in seconds (``None``: no limit; 0: do not block; at most 2,000,000;
        rounded up to the facility's grain, never down) and the largest number of pairs to return
        (1 to 65,536). It may end early or empty-handed: ``Poll`` keeps the deadline and waits again.
        """

    @abstractmethod
    def decode(self, bits: int, interest: Interest) -> Readiness:
        """Translate *bits* of a pair for a source registered with *interest*.

        Pure, so that ``Poll`` need ask only once for each distinct pair.
        """

    @abstractmethod
    def wake(self) -> None:
        """End the present wait, or the next if there is none, by a pair of an internal descriptor.

        Threads: any, also from inside a signal handler, also after ``close``, when it does nothing.
        """

    def fileno(self) -> int:
        """Give a descriptor that is readable while there are events. Only with ``Capability.NESTED``."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Let go of every descriptor that is the backend's own. The sources stay as they are."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go in a forked child: what is closed here must not be felt by the parent."""
