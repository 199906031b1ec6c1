"""Threads inside a wait, and threads at rest: how a test knows of either without sleeping."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final, Generic, TypeVar

from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.failure import RuleFailure

__all__ = ["A_SIGNAL", "Rest", "Running", "signal_main_thread", "since", "sleep_of", "until_blocked"]

T_co = TypeVar("T_co", covariant=True)

if sys.platform == "win32":
    A_SIGNAL: Final = signal.SIGINT

    def signal_main_thread() -> None:
        """Have the main thread run the handler of ``A_SIGNAL``. To send one would end other processes, too."""
        _thread.interrupt_main(A_SIGNAL)

else:
    A_SIGNAL: Final = signal.SIGUSR1

    def signal_main_thread() -> None:
        """Have the main thread run the handler of ``A_SIGNAL``, and have its system call interrupted."""
        signal.pthread_kill(threading.main_thread().ident or 0, A_SIGNAL)


def since(start: float) -> float:
    """Give the seconds since *start*, a reading of the monotonic clock, and a nanosecond more.

    That makes up for the errors of arithmetic with floats. A clock that counts in milliseconds, as on Windows, would
    otherwise show waits that were kept to the tick as too short.
    """
    return time.monotonic() - start + 1e-9


def until_blocked(thread: threading.Thread) -> None:
    """Return once *thread* stands still inside a call, as a thread does that waits in the kernel.

    A thread that merely lost the interpreter lock gets it back within the switch interval, and moves on; one
    that is blocked is found at the same instruction of the same frame again. Two looks, one interval apart,
    decide. On Linux it must also have slept from the one to the other without a break: so a thread that was
    woken, and finds no core to run on, is not taken for blocked. Elsewhere the answer comes early on a machine
    as busy as that; a rule must therefore hold in either order, and only has less bite then.

    Raises:
        TimeoutError: The thread ended, or never stood still.
    """
    deadline = time.monotonic() + SIGNAL_WAIT
    last: tuple[FrameType, int, str] | None = None
    while thread.is_alive() and time.monotonic() < deadline:
        sleep = sleep_of(thread)
        frame = sys._current_frames().get(thread.ident or 0)  # the only view of another thread that Python has
        look = frame and sleep and (frame, frame.f_lasti, sleep)
        if look and look == last:
            return
        last = look or None
        del frame, look
        time.sleep(sys.getswitchinterval())
    raise TimeoutError(f"{thread.name} {'did not stand still' if thread.is_alive() else 'ended'} instead of blocking")


def sleep_of(thread: threading.Thread) -> str:
    """Tell a sleep of *thread* from all its others, as far as the system shows them: empty while it is awake."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/status", encoding="ascii", errors="replace") as file:
            status = dict(line.partition(":\t")[::2] for line in file)
    except OSError:
        return "unseen"
    return f"sleep {status.get('voluntary_ctxt_switches')}" if status["State"].startswith("S") else ""


class Rest:
    """Whether this thread sleeps through so many seconds, or spins; it begins when this is made.

    A thread that spins on a machine with other work may get to run for a moment only. What gives it away is that it
    waits for a core all the time, and does not sleep. Where the system does not say, the processor time must do.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._now()

    def over(self) -> Rest:
        """End it; give itself."""
        self._slept, self._ran = (now - began for now, began in zip(self._now(), self._began, strict=True))
        return self

    def __bool__(self) -> bool:
        return self._ran <= self._seconds / 10 and self._slept >= self._seconds / 2

    def __str__(self) -> str:
        return f"{self._ran:.3f} s of processor time, and {max(self._slept, 0):.3f} s of {self._seconds:g} asleep"

    @staticmethod
    def _now() -> tuple[float, float]:
        """Give the seconds that were slept and run so far, from any beginning."""
        try:
            with open("/proc/thread-self/schedstat", encoding="ascii") as file:
                waited = int(file.read().split()[1]) / 1e9
        except OSError:
            waited = 0
        ran = time.thread_time()
        return time.monotonic() - ran - waited, ran


class Running(Generic[T_co]):
    """A call that runs in a thread of its own. Its result or its error is had by ``result``."""

    def __init__(self, call: Callable[[], T_co], name: str, failure: Callable[[str, str], RuleFailure]) -> None:
        self._call = call
        self._failure = failure
        self._result: list[T_co] = []
        self._error: BaseException | None = None
        self.asked = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # it is raised where the result is asked for
            self._error = error

    def blocked(self) -> Running[T_co]:
        """Wait until the call is blocked in the kernel, see ``until_blocked``; give itself."""
        __tracebackhide__ = True
        try:
            until_blocked(self.thread)
        except TimeoutError as error:
            ending = f"it raised {self._error!r}" if self._error else f"it returned {self._result}"
            failure = self._failure(
                f"{self.thread.name} blocks", f"{error}" + ("" if self.thread.is_alive() else f": {ending}")
            )
            failure.unasked = any(self._result)  # events, of a wait
            raise failure from None
        return self

    def result(self) -> T_co:
        """Join the thread, for at most ``SIGNAL_WAIT``, and give what the call returned, or raise what it raised."""
        __tracebackhide__ = True
        self.asked = True
        self.thread.join(SIGNAL_WAIT)
        if self.thread.is_alive():
            stack = "".join(traceback.format_stack(sys._current_frames().get(self.thread.ident or 0)))
            raise self._failure(
                f"{self.thread.name} returns", f"it is still running after {SIGNAL_WAIT:g} s in\n{stack}"
            )
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, and the frame would hold it
        return self._result[0]
