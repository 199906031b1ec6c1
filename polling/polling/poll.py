"""The front object: it checks, locks, keeps deadlines and coalesces, so that a backend only translates.

The wait is the hot path, and one fact about CPython rules it: signal handlers run between any two
calls, after the first has returned and before its result is stored. ``raw = epoll.poll()`` therefore
drops the batch when a handler raises at that point, and with it every edge and every oneshot in it, for
good; ``try``, ``with`` and locks do not help. What helps is not to let a batch cross a call: the interpreter
looks for signals after a call, but not after it has taken an item from an iterator. So the wait is a
``starmap`` over the kernel's function, and ``for raw in fetch`` stores what it gave without a gap. If an
exception strikes between there and the return, the batch is put by, and the next wait first has the backend look
again at everything in it that would not come again by itself.
For the same reason the wait belongs to whoever took it: ``fetch = table.fetch; table.fetch = None`` is no call
either, so neither a handler nor another thread comes between the two, and a second waiter finds None. (The
interpreter lock is what makes this so. A build without it would need a lock here.)

Locks meet the same fact. After ``lock.acquire()`` and before the ``try`` that would release it a handler may raise,
and the lock stays taken. ``with`` has no such gap, but takes twice as long as the calls. So the four calls that change
registrations acquire inside the ``try``, and release what they may not have: when a handler raises
while another thread has the lock, ``release`` says so with a RuntimeError, and nothing is to be done.

Three more consequences:

  * ``repeat`` runs out after some hundred waits. That is the poll's slow pulse: every so often, and at no cost
    in between, it asks each source of a batch whether it is still what was registered.
  * Everything unusual (a wake, a close, a fork, a number that is nobody's) sets one flag, ``table.alert``; the
    usual wait tests that and nothing else. What user space has to say is worked out behind that flag, too, and
    while a timer runs it stays set.
  * The waits of one poll come one after the other, but registering goes on during a wait. No lock is held
    while the kernel waits.

Closing works by that, too. ``close`` marks the table, and whoever then takes the wait, the closing thread
or the waiter on its way out, keeps it and lets the backend go. So the descriptors never vanish under a call.

Measured figures and the naive forms stand in ``benchmarks/`` and in the tests of SIG-02.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
import weakref
from _thread import RLock  # importing threading takes a millisecond
from itertools import repeat, starmap
from operator import index
from time import monotonic

from polling import _loader
from polling._closing import Closing
from polling._registry import OWN, AnyRegistration, HeldRegistration, Registration, Table, number_of
from polling._report import ReportingSource
from polling._typing import TYPE_CHECKING, Generic, T
from polling.backend import Backend, Capability
from polling.errors import (
    AlreadyRegisteredError,
    ForkedPollError,
    InvalidSourceError,
    NotRegisteredError,
    PollBusyError,
    PollClosedError,
    PollingError,
    UnsupportedError,
    UnsupportedSourceError,
)
from polling.event import Event, Interest, Mode
from polling.user import NEVER, UserRegistration, UserSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Final

    from polling.backend import Pair, Source

__all__ = ["Poll"]

LONGEST_WAIT: Final = 2_000_000.0
"""Seconds that one kernel wait may take: what fits in 31 bits of milliseconds. Longer ones are repeated."""

LARGEST_BATCH: Final = 65_536
"""Pairs in one kernel wait: CPython allocates room for all of them at each call."""

PULSE: Final = 256
"""Waits after which the sources of a batch are asked whether they are still open."""

_GONE: Final = (errno.ENOENT, errno.EBADF)  # what a removal is answered when there is nothing to remove

_NONE: Final = Interest.NONE
_READABLE: Final = Interest.READABLE
_WRITABLE: Final = Interest.WRITABLE
_READ_WRITE: Final = Interest.READ_WRITE


class Poll(Closing, Generic[T]):
    """Waits for many sources at once.

    Each source is registered under a token, any object, which its events carry. Poll keeps no source
    alive: a source that is closed or dropped is deregistered thereby (objects that allow no weak
    references, bare numbers, ``IoSource`` and what is in user space are held, and so is each token, with all that it
    refers to). Deregister before closing while a duplicate may live.

    Args:
        backend: A registered name, a ``Backend`` class, or an instance made for this poll alone. By
            default the name in the environment variable ``POLLING_BACKEND``, or else the best that runs here.

    Raises:
        UnknownBackendError: No backend has that name.
        UnsupportedError: That backend cannot run on this machine, or none can.
        TypeError: *backend* is none of the above.

    Threads: every method may be called from any thread at any time. One at a time may wait; what the others
        change meanwhile holds for that wait. After a fork the child's copy refuses every call.
    Rules: REG, TMO, SIG, CLS, FRK, GCL.
    """

    def __init__(self, backend: str | type[Backend] | Backend | None = None) -> None:
        chosen = _loader.open_backend(backend)
        self._backend: Final = chosen
        self._table: Final = Table(chosen)
        self._args: Final[list[Any]] = [None, 1024]
        self._look: Final[Callable[[Pair], Event[T] | None]] = (
            self._table.__getitem__ if chosen.forgets_closed else self._table.checked
        )
        # Each saves one look-up a call.
        self._registrations: Final = self._table.registrations
        self._add: Final = chosen.register
        self._change: Final = chosen.reregister
        self._again: Final = chosen.rearm
        self._drop: Final = chosen.deregister
        self._forget: Final = self._table.forget
        self._is_nested = False  # somebody asked for the descriptor
        self._emulated: Final = None if Capability.NATIVE_EDGE in chosen.capabilities else Mode.EDGE
        _POLLS.add(self)

    @property
    def backend(self) -> Backend:
        """The backend at work; its ``name`` and ``capabilities`` say what to expect."""
        return self._backend

    # -- registering ---------------------------------------------------------------------------------------

    def register(
        self, source: Source, token: T, interest: Interest = Interest.READABLE, mode: Mode = Mode.LEVEL
    ) -> None:
        """Watch *source* and report it under *token*. A condition that already holds counts as arising now.

        Raises:
            AlreadyRegisteredError: *source*, or another open source under its number, is registered.
            InvalidSourceError: It is closed, its number is negative, or it is the poll's own.
            UnsupportedSourceError: A regular file, a directory, or what else the backend cannot watch.
            UnsupportedError: The backend cannot give *mode* or *interest* for this source, or it is one in user
                space and registered at another poll.
            TypeError: *source* has no descriptor, or *interest* or *mode* is something else.
            PollClosedError, ForkedPollError: The poll is no longer usable.
            OSError: The kernel has no room (ENOSPC, ENOMEM).

        After an error nothing has changed. The source's blocking mode is never touched.

        Threads: A wait in progress takes it up at once, and neither ends nor is prolonged by it.
        Rules: REG-01, REG-04 to REG-06, REG-08, REG-10, REG-12, REG-18, REG-23, REG-25, REG-26, SRC-01.
        """
        if type(interest) is not Interest or type(mode) is not Mode:
            raise _wrong_types(interest, mode)
        try:
            fd = source.fileno()  # type: ignore[union-attr]  # an int has none, nor has user space: see below
        except (AttributeError, ValueError, OSError) as error:
            if isinstance(source, UserSource):
                return self._register_user(source, token, interest, mode)
            fd = _number(source, error)
        table = self._table
        registrations = self._registrations
        lock = table.lock
        try:
            lock.acquire()
            if (
                fd in registrations
                or type(fd) is not int
                or fd < 0
                or table.refusal is not None
                or not (interest is _READABLE or interest is _READ_WRITE or interest is _WRITABLE)
                or mode is self._emulated
            ):
                self._admit(source, fd, interest, mode)
            registration: AnyRegistration
            try:
                registration = Registration(source, self._forget)  # type: ignore[arg-type]  # an int raises
            except TypeError:
                registration = HeldRegistration(source)
            registration.fd = fd
            registration.token = token
            registration.interest = interest
            registration.mode = mode
            registration.pairs = ()
            registration.settled = False
            registrations[fd] = registration
            try:
                if interest is not _NONE:
                    self._add(fd, interest, mode)
            except BaseException as error:
                registrations.pop(fd, None)
                raise self._undone(registration, error) from None
            if table.fetch is None:
                table.settle(registration)
            else:
                registration.settled = True
        finally:
            try:
                lock.release()
            except RuntimeError:
                pass  # a signal struck while another thread had it; see the top of this module

    def reregister(self, source: Source, token: T, interest: Interest, mode: Mode) -> None:
        """Replace token, interest and mode of *source*, all three, and arm it anew.

        A condition that holds is reported, whatever was reported before. Events of the former registration
        are not current any more. There are no defaults: one would turn a oneshot into level unnoticed.

        Raises:
            NotRegisteredError: *source* is not registered here.
            InvalidSourceError: It is closed.
            UnsupportedError, TypeError, PollClosedError, ForkedPollError, OSError: As ``register``.

        After an error the former registration is as it was.

        Threads: As ``register``.
        Rules: REG-03, REG-06, REG-14, INT-10, LVL-04, EDG-02, ONE-04.
        """
        if type(interest) is not Interest or type(mode) is not Mode:
            raise _wrong_types(interest, mode)
        try:
            fd = source.fileno()  # type: ignore[union-attr]  # an int has none, nor has user space: see below
        except (AttributeError, ValueError, OSError) as error:
            if isinstance(source, UserSource):
                return self._reregister_user(source, token, interest, mode)
            fd = _number(source, error)
        table = self._table
        lock = table.lock
        try:
            lock.acquire()
            registration = self._registrations.get(fd)
            if registration is None or registration() is not source:
                registration = self._open_registration(source, fd)
            # From here on each pair of this number is in doubt, until the wait that begins after the change.
            registration.settled = False
            outdated = table.outdate(registration) if registration.pairs else None
            try:
                if (
                    not (interest is _READABLE or interest is _READ_WRITE or interest is _WRITABLE)
                    or registration.interest is _NONE
                    or mode is self._emulated
                ):
                    self._change_specially(source, registration, interest, mode)
                else:
                    self._change(fd, interest, mode)
            except BaseException as error:
                if outdated:
                    registration.pairs = tuple(outdated)
                    table.update(outdated)
                error = self._unchanged(registration, mode, error)
                table.settle(registration)
                raise error from None
            # The kernel has it; so has the table, before there is a call in which a signal handler could raise.
            former = registration.mode
            registration.token = token
            registration.interest = interest
            registration.mode = mode
            if registration.pairs:  # a signal handler has waited on this poll just now, and met what was half changed
                table.outdate(registration)
            if former is self._emulated is not mode:
                _silence(registration)
            if table.fetch is None:
                table.settle(registration)
            else:
                registration.settled = True
        finally:
            try:
                lock.release()
            except RuntimeError:
                pass  # a signal struck while another thread had it; see the top of this module

    def rearm(self, source: Source) -> None:
        """Arm *source* anew with the token, interest and mode it has: the cheap way on from a oneshot.

        A condition that holds is reported. Events at hand stay current. In LEVEL it changes nothing.

        Raises:
            NotRegisteredError: *source* is not registered here.
            InvalidSourceError: It is closed.
            TypeError, PollClosedError, ForkedPollError: As ``register``.

        Threads: As ``register``.
        Rules: ONE-04, ONE-05.
        """
        try:
            fd = source.fileno()  # type: ignore[union-attr]  # an int has none, nor has user space: see below
        except (AttributeError, ValueError, OSError) as error:
            if isinstance(source, UserSource):
                return self._rearm_user(source)
            fd = _number(source, error)
        lock = self._table.lock
        try:
            lock.acquire()
            registration = self._registrations.get(fd)
            if registration is None or registration() is not source:
                registration = self._open_registration(source, fd)
            if registration.interest:
                self._again(fd, registration.interest)
        finally:
            try:
                lock.release()
            except RuntimeError:
                pass  # a signal struck while another thread had it; see the top of this module

    def deregister(self, source: Source) -> None:
        """Stop watching *source*, and let go of its token. No later wait reports it.

        A source that was closed in the meantime can still be deregistered, as long as its number was not
        registered for another. Events already handed out stay what they are; ``is_current`` tells.

        Raises:
            NotRegisteredError: *source* is not registered here.
            TypeError, PollClosedError, ForkedPollError: As ``register``.

        Threads: As ``register``. A wait in progress may still have taken up an event before.
        Rules: REG-02, REG-09, REG-13, REG-15, REG-25.
        """
        try:
            fd = source.fileno()  # type: ignore[union-attr]  # an int has none, nor has user space: see below
        except Exception as error:
            if isinstance(source, UserSource):
                return self._deregister_user(source)
            try:
                fd = _number(source, error)
            except InvalidSourceError:
                fd = -1  # some objects raise once they are closed, each in its own way; others say -1
        table = self._table
        lock = table.lock
        try:
            lock.acquire()
            registration = self._registrations.get(fd)
            if registration is None or registration() is not source:
                registration = self._any_registration(source, fd)
                fd = registration.fd
            if registration.pairs:
                table.outdate(registration)
            if table.fetch is None:
                table.removed = table.alert = True
            del self._registrations[fd]
            registration.token = None
            if registration.interest is not _NONE:
                try:
                    self._drop(fd)
                except OSError as error:
                    self._check_gone(error)
            if registration.mode is self._emulated:
                _silence(registration)
        except (KeyError, ValueError):
            if table.refusal is not None:  # closed by the handler of a signal that struck in this call
                raise self._refused() from None
            raise
        finally:
            try:
                lock.release()
            except RuntimeError:
                pass  # a signal struck while another thread had it; see the top of this module

    def is_current(self, event: Event[T]) -> bool:
        """Tell whether what *event* reports is still registered, unchanged, and open.

        False once its registration was replaced or removed, or its source was closed: by a worker thread,
        or by the handling of an earlier event of the same batch.

        Rules: REG-17.
        """
        key = event._key
        if not isinstance(key, tuple):
            return key in self._table.users
        registration = self._registrations.get(key[0])
        return self._table.get(key) is event and registration is not None and registration.is_live()

    # -- waiting -------------------------------------------------------------------------------------------

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[T]]:
        """Wait until something is ready, and say what.

        Args:
            timeout: Seconds. ``None`` waits without limit; 0 does not wait, and neither does a negative number,
                which is a deadline just passed. Any finite or infinite number will do. Never returns early;
                late by up to the backend's grain, a millisecond unless it has ``Capability.SUB_MS``.
            max_events: How many sources at most, from 1. Wakes and all of user space come first, and on top of it.

        Returns:
            The events, at most one for each source, in no particular order. Empty only when the timeout has
            passed. Sources left out are reported by later waits, none starved. Readiness may be
            spurious: the call that follows may still say that it would block.

        Raises:
            ValueError: *timeout* is NaN, or *max_events* is less than 1.
            TypeError: One of them has the wrong type.
            PollBusyError: Another thread waits, or this one does further up its stack.
            PollClosedError: The poll was closed, before or meanwhile, or in a signal handler.
            ForkedPollError: This process was forked off the poll's.

        A signal whose handler returns does not end the wait. One whose handler raises ends it with that
        exception; what had been fetched is looked at again by the next wait, and nothing is lost, as long as
        the result goes straight into a variable: ``events = poll.poll()``.

        Threads: One at a time. Registering in other threads goes on.
        Rules: MRG, TMO, SIG-01 to SIG-03, CAP, SPU, REG-21, CLS-03, THR-01.
        """
        table = self._table
        fetch = table.fetch
        table.fetch = None
        if fetch is None:
            raise self._occupied()
        raw: Sequence[Pair] = ()  # the batch at hand, until its events are handed out
        try:
            args = self._args
            if max_events is not args[1]:
                args[1] = _batch_size(max_events)
            if timeout is None:
                deadline = args[0] = None
            else:
                timeout = checked_seconds(timeout, "timeout must be a number of seconds or None")
                if timeout < 0:
                    timeout = 0.0
                deadline = monotonic() + timeout
                late = False
                args[0] = timeout if timeout < LONGEST_WAIT else LONGEST_WAIT
            look = self._look
            if table.alert:
                if table.refusal or table.cut_off or table.woken or table.unsettled or table.removed:
                    self._resume()
                args[0] = self._sooner(args[0])
                if table.stale:
                    fetch = self._bind()
                    look = table.checked
            while True:
                for raw in fetch:  # noqa: B007  # the wait; see the top of this module
                    break
                else:
                    fetch = self._bind()
                    look = table.checked
                    continue
                events = [look(raw[0])] if len(raw) == 1 else [*map(look, raw)]
                if table.alert:
                    events = self._sort_out(events)
                    if table.stale:
                        fetch = self._bind()
                    table.woken = {}  # from here to the caller there is no call, so no signal handler
                    if events:
                        return events  # type: ignore[return-value]  # _sort_out left no None
                elif events:
                    return events  # type: ignore[return-value]  # a None comes with an alert
                if deadline is None:
                    args[0] = None
                else:
                    remaining = deadline - monotonic()
                    if remaining > 0:
                        args[0] = min(remaining, LONGEST_WAIT)
                    elif raw and not late:
                        late = True  # what came was not for the caller, and may have kept out what is: one more look
                        args[0] = 0
                    else:
                        return []
                if table.alert:
                    args[0] = self._sooner(args[0])
                raw = ()
        except BaseException as error:
            if raw:
                table.cut_off = raw  # for the next wait to look at
            table.alert = table.stale = True
            if table.refusal is ForkedPollError and isinstance(error, OSError):
                raise self._refused() from None  # a handler forked, and the child's descriptors are closed already
            raise
        finally:
            table.fetch = fetch
            if table.refusal is not None:
                self._leave()

    def _resume(self) -> None:
        """Take up what an interrupted wait left."""
        table = self._table
        if table.refusal is not None:
            raise self._refused()
        if table.cut_off:
            self._look_again(table.cut_off)
            table.cut_off = ()
        if table.woken:
            table.hear_again()
        self._settle()

    def _sooner(self, timeout: float | None) -> float | None:
        """Give the seconds to wait at most: less than *timeout* if user space has something to say before."""
        table = self._table
        if table.pending:
            for registration in [*table.pending]:
                if registration.armed & registration.source._ready:
                    return 0
        if table.nearest != NEVER:
            left = table.nearest - monotonic()
            if left < 0:
                return 0
            if timeout is None or left < timeout:
                return left if left < LONGEST_WAIT else LONGEST_WAIT
        return timeout

    def _sort_out(self, events: list[Event[T] | None]) -> list[Event[T] | None]:
        """See to everything that an alert may stand for. Gives wakes and events, without the gaps."""
        table = self._table
        table.alert = False
        if table.refusal is not None:
            raise self._refused()
        gaps = table.gaps
        if gaps:
            table.gaps = False
            while table.strays:
                self._turn_away(table.strays[-1])
                del table.strays[-1]
            if table.doubtful:
                self._look_again(table.doubtful)
                table.doubtful = []
        if table.unsettled or table.removed:
            self._settle()
        if table.nearest != NEVER:
            now = monotonic()
            if table.nearest <= now:
                table.pass_time(now)
            table.alert = True  # while a timer runs, it concerns each wait
        if table.pending:
            heard = table.hear()
            if table.pending and self._is_nested:
                self._backend.wake()  # for whoever watches this poll: there is more to come
            if len(events) == 1 and events[0] is None:
                return heard
            events = heard + events
        return [event for event in events if event is not None] if gaps else events

    def _settle(self) -> None:
        """Between two waits: what was changed during the last one is settled for the next."""
        table = self._table
        table.removed = False
        while table.unsettled:
            table.unsettled[-1].settled = True
            del table.unsettled[-1]

    def _bind(self) -> Iterator[Sequence[Pair]]:
        """Ask the backend for its waiter, which lets it set its house in order, and wind the pulse up."""
        self._table.stale = False
        with self._table.lock:
            return starmap(self._backend.waiter(), repeat(self._args, PULSE))

    def _look_again(self, pairs: Sequence[Pair]) -> None:
        """Tell the backend anew what it is to watch of these sources, which reports them again if they are still ready.

        What changed while it was fetched, or was cut off by a signal handler's exception, may be there otherwise than
        here; and a oneshot was disarmed as a whole, whichever part of its interest was reported.
        """
        with self._table.lock:
            for fd, _ in pairs:
                registration = self._registrations.get(fd)
                if registration is not None and registration is not OWN and registration.is_live():
                    try:
                        if registration.interest:
                            self._change(fd, registration.interest, registration.mode)
                        else:
                            self._drop(fd)
                    except OSError:
                        pass  # closed, or taken out already: nothing to look at

    def _turn_away(self, fd: int) -> None:
        """Take a number out of the backend that turned up and is nobody's, or whose source is closed.

        One that another thread deregistered during this wait explains itself, and is left alone.
        """
        table = self._table
        with table.lock:
            registration = self._registrations.get(fd)
            if registration is None:
                if table.removed:
                    return
            elif registration.is_live():
                return
            else:
                table.forget(registration)
                self._registrations.pop(fd, None)
            self._remove(fd)

    # -- closing -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Give a descriptor that is readable while there are events, to watch this poll by another.

        It knows nothing of time: a ``Timer`` here is not told of. Register that where the wait is.

        Raises:
            UnsupportedError: The backend has none (no ``Capability.NESTED``).
            PollClosedError, ForkedPollError: The poll is no longer usable.
        """
        if self._table.refusal is not None:
            raise self._refused()
        if Capability.NESTED not in self._backend.capabilities:
            raise UnsupportedError(f"the {self._backend.name} backend has no descriptor to be watched by")
        self._is_nested = True
        if self._table.pending:
            self._backend.wake()
        return self._backend.fileno()

    def close(self) -> None:
        """Let go of everything. Sources stay open and as they are. Closing again does nothing.

        A wait in progress, in another thread or around the signal handler that calls this, ends with
        ``PollClosedError``. This call does not wait for it; the descriptors go when the last call has left.
        In a forked child it does nothing.

        Rules: CLS-01 to CLS-06, FRK-02.
        """
        # Closing again finishes what an exception from a signal handler may have cut off.
        with self._table.lock:
            if self._table.refusal is ForkedPollError:
                return
            self._shut(PollClosedError)
        if not self._leave():
            self._backend.wake()

    def _shut(self, refusal: type[PollingError]) -> None:
        """Mark the poll as unusable and let go of all registrations."""
        table = self._table
        table.refusal = refusal
        for registration in self._registrations.values():
            if registration.mode is self._emulated:
                _silence(registration)
        self._registrations.clear()
        table.clear()
        for user in [*table.users]:
            table.discharge(user)
        table.alert = True

    def _leave(self) -> bool:
        """Let the backend go if nobody has the wait; tell whether that was so."""
        table = self._table
        fetch = table.fetch
        table.fetch = None
        if fetch is None:
            return False
        if table.refusal is PollClosedError:
            try:
                with table.lock:
                    self._backend.close()
            except BaseException:
                table.fetch = fetch  # cut off: who closes next does it again
                raise
        return True

    def _after_fork(self) -> None:
        """In the child: the lock may be held by a thread that is not here, the kernel's set is the parent's."""
        self._table.lock = RLock()
        self._table.fetch = None
        if self._table.refusal is None:
            self._shut(ForkedPollError)
            self._backend.abandon()

    def __del__(self) -> None:
        if getattr(self, "_again", None) is not None and self._table.refusal is None:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        refusal = self._table.refusal
        if refusal is None:
            state = f"{len(self._registrations) - len(self._backend.internal)} registered"
        else:
            state = "closed" if refusal is PollClosedError else "of the parent process"
        return f"<Poll {self._backend.name}: {state}>"

    # -- the unusual ---------------------------------------------------------------------------------------

    def _refused(self) -> PollingError:
        if self._table.refusal is ForkedPollError:
            return ForkedPollError("this poll belongs to the parent process; make a new one after the fork")
        return PollClosedError("this poll is closed")

    def _occupied(self) -> PollingError:
        if self._table.refusal is not None:
            return self._refused()
        return PollBusyError("another call is waiting on this poll; one at a time")

    def _admit(self, source: object, fd: int, interest: Interest, mode: Mode) -> None:
        """Check what ``register`` does not check for everybody, and make room where a dead source had been."""
        if self._table.refusal is not None:
            raise self._refused()
        _check_number(source, fd)
        present = self._registrations.get(fd)
        if present is OWN:
            raise InvalidSourceError(f"descriptor {fd} is the poll's own")
        if present is not None and present.is_live():
            raise AlreadyRegisteredError(errno.EEXIST, f"descriptor {fd} is already registered, by {present()!r}")
        if present is not None:
            self._table.forget(present)
            self._registrations.pop(fd, None)
            self._remove(fd)
        if interest is _NONE or (mode is self._emulated and not isinstance(source, ReportingSource)):
            # Whether it can be watched at all the kernel says; then it is out of the kernel's set again.
            try:
                self._add(fd, Interest.READABLE, Mode.ONESHOT)
            except OSError as error:
                raise _translated(error, source) from None
            self._remove(fd)
        self._check(source, fd, interest, mode)

    def _check(self, source: object, fd: int, interest: Interest, mode: Mode) -> None:
        """Refuse what this backend cannot give, and have an emulated edge's source report its would-blocks."""
        name = self._backend.name
        if Interest.PRIORITY in interest and Capability.PRIORITY not in self._backend.capabilities:
            raise UnsupportedError(f"the {name} backend does not report Interest.PRIORITY")
        if mode is self._emulated:
            if not isinstance(source, ReportingSource):
                raise UnsupportedError(
                    f"the {name} backend has no edges of its own, so Mode.EDGE needs a source that reports when it "
                    f"would block, and {source!r} does not: use the types of polling.net, wrap it in "
                    f"polling.IoSource, or register it with Mode.EDGE_ONESHOT"
                )
            source._report_to(self._backend, fd)

    def _change_specially(self, source: object, registration: AnyRegistration, interest: Interest, mode: Mode) -> None:
        """Do what ``reregister`` does not do for everybody: refuse, park, unpark, begin an emulated edge."""
        fd = registration.fd
        watched = registration()
        self._check(source if watched is None else watched, fd, interest, mode)
        if not interest:
            if registration.interest:
                self._remove(fd)
        elif registration.interest:
            self._change(fd, interest, mode)
        else:
            self._add(fd, interest, mode)

    def _remove(self, fd: int) -> None:
        """Take a number out of the backend, where it may not be any more: closed, or used again."""
        try:
            self._drop(fd)
        except OSError as error:
            self._check_gone(error)

    def _check_gone(self, error: OSError) -> None:
        """Take note that there was nothing to remove: what may be left of it is seen to before the next wait."""
        if error.errno not in _GONE:
            raise error
        self._table.alert = self._table.stale = True

    def _undone(self, registration: AnyRegistration, error: BaseException) -> BaseException:
        """Leave no trace of a registration that failed; give the exception to raise."""
        source = registration()
        self._table.forget(registration)
        if registration.mode is self._emulated:
            _silence(registration)
        if isinstance(error, PollingError):
            return error
        if self._table.refusal is not None:  # closed by the handler of a signal that struck in this call
            return self._refused()
        if isinstance(error, OSError) and error.errno is not None:
            return _translated(error, source)
        self._remove(registration.fd)  # a signal handler raised, before the kernel's call or after it
        return error

    def _unchanged(self, registration: AnyRegistration, mode: Mode, error: BaseException) -> BaseException:
        """Put a registration back as it was before a change that failed; give the exception to raise."""
        if mode is self._emulated is not registration.mode:
            _silence(registration)
        if isinstance(error, PollingError):
            return error
        if self._table.refusal is not None:  # as above
            return self._refused()
        if isinstance(error, OSError) and error.errno is not None:
            return _translated(error, registration())
        fd = registration.fd
        if registration.interest:  # as above; a condition that holds may be reported once more
            self._change(fd, registration.interest, registration.mode)
        else:
            self._remove(fd)
        return error

    def _open_registration(self, source: object, fd: int) -> AnyRegistration:
        """Find the registration of *source*, which must be open, when it is not the one that stands under *fd*."""
        if self._table.refusal is not None:
            raise self._refused()
        _check_number(source, fd)
        registration = self._registrations.get(fd)
        if registration is None or registration is OWN or not registration.is_live():
            raise NotRegisteredError(errno.ENOENT, f"{source!r} is not registered")
        return registration  # the number names it: *source* is a bare number, or another object for the same

    def _any_registration(self, source: object, fd: int) -> AnyRegistration:
        """The same, but *source* may have been closed: then it is known by its identity alone."""
        if type(fd) is not int or fd >= 0 or type(source) is int:
            return self._open_registration(source, fd)
        if self._table.refusal is not None:
            raise self._refused()
        for reference in weakref.getweakrefs(source):
            if isinstance(reference, Registration) and self._registrations.get(reference.fd) is reference:
                return reference
        for registration in self._registrations.values():
            if isinstance(registration, HeldRegistration) and registration.source is source:
                return registration
        raise NotRegisteredError(
            errno.ENOENT, f"{source!r} is closed, and was not registered or its number was used again"
        )

    # -- user space ----------------------------------------------------------------------------------------

    def _register_user(self, source: UserSource, token: T, interest: Interest, mode: Mode) -> None:
        """Do what ``register`` does for a descriptor."""
        table = self._table
        registration = UserRegistration(source, token, interest, mode, table, self._backend.wake)
        try:
            with table.lock:
                if table.refusal is None and source._registration is not None:
                    if source._registration.table is table:
                        raise AlreadyRegisteredError(errno.EEXIST, f"{source!r} is already registered")
                    raise UnsupportedError(f"{source!r} is registered at another poll; user space has one at a time")
                table.enlist(registration)
                if table.refusal is not None:
                    raise self._refused()
            if registration.armed & source._ready:
                self._backend.wake()
        except BaseException:
            if source._registration is registration:
                table.discharge(registration)
            raise

    def _reregister_user(self, source: UserSource, token: T, interest: Interest, mode: Mode) -> None:
        """Do what ``reregister`` does for a descriptor."""
        table = self._table
        with table.lock:
            former = self._user_registration(source)
            registration = UserRegistration(source, token, interest, mode, table, self._backend.wake)
            table.enlist(registration, former)
            if table.refusal is not None:
                raise self._refused()
        if registration.armed & source._ready:
            self._backend.wake()

    def _rearm_user(self, source: UserSource) -> None:
        """Do what ``rearm`` does for a descriptor."""
        with self._table.lock:
            registration = self._user_registration(source)
            registration.armed = registration.interest
        if registration.stir(source._ready):
            self._backend.wake()

    def _deregister_user(self, source: UserSource) -> None:
        """Do what ``deregister`` does for a descriptor."""
        with self._table.lock:
            self._table.discharge(self._user_registration(source))

    def _user_registration(self, source: UserSource) -> UserRegistration:
        if self._table.refusal is not None:
            raise self._refused()
        registration = source._registration
        if registration is None or registration.table is not self._table:
            raise NotRegisteredError(errno.ENOENT, f"{source!r} is not registered")
        return registration


def _silence(registration: AnyRegistration) -> None:
    """End the reports of an edge's source."""
    source = registration()
    if isinstance(source, ReportingSource):
        source._report_to(None, -1)


def _number(source: object, error: Exception) -> int:
    """Give the number of a source that has no ``fileno()``, which is an int, or raise what is wrong with it."""
    if type(source) is int:
        return source
    if number_of(source) >= 0:
        raise error  # a signal handler's
    if hasattr(source, "fileno"):
        raise InvalidSourceError(f"{source!r} is closed, or has no descriptor: {error}") from None
    raise TypeError(f"a source is an int or has a method fileno(), not {type(source).__name__}") from None


def _check_number(source: object, fd: object) -> None:
    """Refuse what cannot be a descriptor."""
    if type(fd) is not int:
        raise TypeError(f"fileno() of {source!r} gave {fd!r}, which is no int")
    if fd < 0:
        raise InvalidSourceError(f"{source!r} has no descriptor ({fd}): it is closed, or was never open")


def _wrong_types(interest: object, mode: object) -> TypeError:
    if type(interest) is not Interest:
        return TypeError(f"interest must be an Interest, not {interest!r}")
    return TypeError(f"mode must be a Mode, not {mode!r}")


def _translated(error: OSError, source: object) -> OSError | PollingError:
    """Turn what a kernel said of a source into the library's error, where it has one."""
    if error.errno == errno.EBADF:
        return InvalidSourceError(f"{source!r} is closed (EBADF)")
    if error.errno == errno.EPERM:
        return UnsupportedSourceError(
            errno.EPERM, f"{source!r} cannot be watched: a regular file or directory, perhaps"
        )
    if error.errno == errno.ELOOP:
        return InvalidSourceError(f"{source!r} would watch itself, by way of this poll")
    return error


def checked_seconds(number: object, rule: str) -> float:
    """Give a number of seconds as a float, perhaps infinite.

    Raises:
        TypeError, ValueError: It is no number, or NaN: *rule*, in words, does not hold.
    """
    if not hasattr(number, "__float__") and not hasattr(number, "__index__"):
        raise TypeError(f"{rule}, not {number!r}")
    try:
        seconds = float(number)  # type: ignore[arg-type]  # just checked
    except OverflowError:
        seconds = NEVER if number > 0 else -NEVER  # type: ignore[operator]  # an int beyond all floats
    if seconds != seconds:
        raise ValueError(f"{rule}, not NaN")
    return seconds


def _batch_size(max_events: object) -> int:
    """Check *max_events*, when it is another than last time, and give what the kernel is asked for at once."""
    try:
        number = index(max_events)  # type: ignore[arg-type]  # that it may not fit is what is asked
    except TypeError:
        raise TypeError(f"max_events must be an int, not {max_events!r}") from None
    if number < 1:
        raise ValueError(f"max_events must be at least 1, not {number}")
    return min(number, LARGEST_BATCH)


_POLLS: Final[weakref.WeakSet[Poll[Any]]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for poll in list(_POLLS):
        poll._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
