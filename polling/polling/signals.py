"""Signals as a source: what arrives is reported by the wait, and not handled in the midst of some other line.

Some facts about signals in CPython:

  * The C handler only notes the signal, and writes its number to the wake-up descriptor, at once and in whatever
    thread it is. The Python handler runs later, in the main thread, between two instructions.
  * A signal that lands on another thread does not interrupt the main thread's system call; nor does any on Windows,
    where Ctrl-C is a thread of its own. Then nothing but the wake-up descriptor ends a wait.
  * There is one wake-up descriptor a process. On Windows it must be a socket. What does not fit into it is dropped.
  * Handlers and wake-up descriptor can be set in the main thread only.

What follows: unlike timers and channels this source has a descriptor, one end of a pair of sockets, which the kernel
reports in all modes. The other end is the wake-up descriptor. The bytes say no more than that there is something: what
arrived is noted by the Python handler, which cannot overflow. In the main thread it has run by the time that the wait
returns. In another thread it may come later than the byte, so it sends one more.

Of several ``Signals`` each is watched somewhere, and the main thread may wait for any of them, but the wake-up
descriptor is one. So as long as there are several a thread has it, which rings for the one whose signal arrived, and
for all if there is more than one byte, since others may have been dropped. That ring may come after the signal was
received, and is an event for nothing then.

References: signal(7), the documentation of ``signal.set_wakeup_fd``; the rules SIG-03 to SIG-05, SIG-07 to SIG-10.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from functools import partial

from polling._closing import Closing
from polling._report import ReportingSource
from polling._typing import TYPE_CHECKING
from polling.errors import AlreadyRegisteredError, InvalidSourceError
from polling.event import Interest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Any, Final

    from polling.backend import Backend

__all__ = ["Signals"]

NOBODY: Final = -1
"""What stands for no wake-up descriptor."""


class Signals(ReportingSource, Closing):
    """Receives signals, which so do not do what they do otherwise: a source, readable while some have arrived.

        with Signals([signal.SIGINT, signal.SIGTERM]) as signals:
            poll.register(signals, token)
            ...
            if event.token is token:
                for number in signals.receive(): ...

    Until it is closed; then there is again what was there before. It is not closed by being dropped. In a forked child
    it is closed: signals do there what they did before.

    Args:
        signals: Which ones. What cannot be received (SIGKILL) or is none is refused.

    Raises:
        AlreadyRegisteredError: Another ``Signals`` that is open receives one of them.
        ValueError: This is not the main thread; or a number is no signal, or has a handler that is not Python's and
            so could not be restored.
        OSError: The system does not let go of it (EINVAL), or has no sockets to spare.

    After an error nothing has changed.

    Platforms: Windows has SIGINT and SIGBREAK from the keyboard.
    Rules: SIG-05, SIG-07 to SIG-10.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._watcher: tuple[Backend, int] | None = None
        self._members = {int(number): signal.Signals(number) for number in signals}
        self._before: dict[int, Any] = {}  # the handlers
        self._arrived: list[signal.Signals] = []  # each once
        _check_main_thread()
        for number, member in self._members.items():
            if any(number in other._members for other in _open):
                raise AlreadyRegisteredError(errno.EEXIST, f"{member.name} is received by another Signals")
            if signal.getsignal(number) is None:
                raise ValueError(f"{member.name} has a handler that is not Python's and could not be restored")
        self._near, self._far = socket.socketpair()
        try:
            for end in self._near, self._far:
                end.setblocking(False)
            for number in self._members:
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._note)
            _open.append(self)
            _wakeup.lead()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Give the descriptor to be watched, -1 once closed."""
        return self._near.fileno()

    def receive(self) -> list[signal.Signals]:
        """Take what has arrived, each signal once however often it came, in the order of first arrival.

        There may be none, after an event too.

        Raises:
            InvalidSourceError: It is closed.

        Threads: Any. Handlers run in the main thread, and a signal counts as arrived once its own has run.
        """
        if self._near.fileno() < 0:
            raise InvalidSourceError("these signals are closed")
        try:
            try:
                while self._near.recv(4096):
                    pass
            except BlockingIOError:
                self._would_block(Interest.READABLE)
        except BaseException:  # a signal handler's: it is to be told again
            self._ring()
            raise
        # From here on there is no call.
        arrived = self._arrived
        self._arrived = []
        return arrived

    def close(self) -> None:
        """Put back the handlers and the wake-up descriptor that were there before. Closing again does nothing.

        A handler that was set since by somebody else is left alone. What was not received is dropped.

        Raises:
            ValueError: This is not the main thread. Nothing has changed.
        """
        if self._near.fileno() < 0:
            return
        _check_main_thread()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, before)
        with _wakeup.passing_on:  # or the relay might ring at a number that is somebody else's by then
            if self in _open:
                _open.remove(self)
        _wakeup.lead()
        self._far.close()
        self._near.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Be the handler: the wake-up descriptor has the byte already, but perhaps another thread took it too soon."""
        member = self._members[number]
        if member not in self._arrived:
            self._arrived += [member]
        self._ring()

    def _ring(self) -> None:
        try:
            self._far.send(b"\0")
        except BlockingIOError:
            pass  # full, and so readable
        except OSError:
            if self._far.fileno() >= 0:
                raise

    def __repr__(self) -> str:
        names = " ".join(member.name for member in self._members.values())
        return f"<Signals {names}{'' if self._near.fileno() >= 0 else ', closed'}>"


_open: Final[list[Signals]] = []

_set_wakeup: Final = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


class _Relay:
    """Has the wake-up descriptor while several are open, and passes on to them what comes."""

    def __init__(self) -> None:
        self._near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self._thread = threading.Thread(target=self._pass_on, name="polling signals", daemon=True)

    def start(self) -> None:
        """Begin, unless it has."""
        if self._thread.ident is None:
            self._thread.start()

    def _pass_on(self) -> None:
        while numbers := self._near.recv(4096):
            with _wakeup.passing_on:
                for signals in [*_open]:
                    if len(numbers) > 1 or numbers[0] in signals._members:
                        signals._ring()

    def close(self) -> None:
        """End the thread, which in a forked child there is none of. Closing again does nothing."""
        if self._thread.is_alive():
            self.far.shutdown(socket.SHUT_WR)  # which reaches it also if another process has a copy of this end
            self._thread.join()
        self.far.close()
        self._near.close()


class _Wakeup:
    """The wake-up descriptor: whose it is, and whose it was before the first was opened."""

    def __init__(self) -> None:
        self.passing_on = threading.RLock()  # while the relay rings; none of those that are open is closed meanwhile
        self._own = self._former = NOBODY
        self._relay: _Relay | None = None

    def lead(self) -> None:
        """Have it lead to all that are open: to the one, or by the relay; if there is none, to where it led before.

        Whatever an exception cuts off of this is done by the next call.
        """
        if len(_open) > 1:
            if self._relay is None:
                self._relay = _Relay()
            self._relay.start()
            wanted = self._relay.far.fileno()
        else:
            wanted = _open[0]._far.fileno() if _open else NOBODY
        if wanted != self._own:
            own = self._own
            try:
                for present in map(_set_wakeup, [self._former if wanted == NOBODY else wanted]):
                    # Up to here and from here on there is no call.
                    self._own = wanted
                    if own == NOBODY:
                        self._former = present
            except (ValueError, OSError):  # EBADF: it was somebody else's, who has closed it since
                self._own = NOBODY
                present = signal.set_wakeup_fd(NOBODY)
            if own != NOBODY and present not in (own, self._former):
                _set_wakeup(present)  # somebody else's, set since
        if self._relay is not None and len(_open) < 2:
            self._relay.close()
            self._relay = None


_wakeup: Final = _Wakeup()


def _check_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("signals belong to the main thread: open and close Signals there")


def _close_in_child() -> None:
    _wakeup.passing_on = threading.RLock()  # the relay, which may have it, is not here
    for signals in _open[::-1]:
        signals.close()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_in_child)
