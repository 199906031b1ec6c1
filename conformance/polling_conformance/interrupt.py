"""A signal handler at any step of a call, one step after the other: what a storm of signals meets by chance.

CPython runs the handler of a signal between two instructions, but not between any two: when a function begins;
after a call, before its result is stored; and at the jump back of a loop. A tracer that acts there, and only there,
stands for a handler that runs at that moment, deterministically and without a signal. What it raises comes out of
that instruction just as a handler's exception does.

The tracer looks at the frames of the library and of the backend alone, except for finalisers and what they call,
since no exception comes out of those. It takes the end of a Python function that was called from another for a
step as well, where the interpreter has none: slightly more than can happen.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable
from functools import cache
from itertools import count
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar

from polling import Backend, Interest, Mode, Poll, Source, Waker
from polling_conformance.durations import SIGNAL_WAIT

__all__ = ["Interrupted", "Interrupter", "Struck", "at_each_step", "calls_of", "strike"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Struck(Exception):  # it is no error: it stands for whatever a handler raises, Ctrl-C above all
    """What the handlers of these tests raise."""


def strike() -> None:
    """Raise it: the shortest handler that does."""
    raise Struck


class Interrupted(Generic[T_co]):
    """How a call went that was interrupted."""

    def __init__(self) -> None:
        self.where: str | None = None
        """The line at which it was interrupted; ``None`` if it has no such step."""
        self.returned: T_co | None = None
        self.error: Exception | None = None

    def __repr__(self) -> str:
        outcome = f"raised {self.error!r}" if self.error else f"returned {self.returned!r}"
        return f"interrupted {self.where}: {outcome}"


class Interrupter:
    """Calls with a handler at one step."""

    def __init__(self, step: int, packages: frozenset[str]) -> None:
        self.step = step
        self.missed = False
        """Whether there was a call that has no such step."""
        self.packages = packages

    def __call__(self, call: Callable[[], T], handler: Callable[[], object]) -> Interrupted[T]:
        """Call, and run *handler* once, at this step."""
        outcome = _at_step(self.step, call, handler, self.packages)
        self.missed |= outcome.where is None
        return outcome


def at_each_step(scene: Callable[[Interrupter], object], poll: Poll[object], *others: object) -> int:
    """Play *scene* with an interruption at the first step of a call, at the second, and so on to its end.

    Args:
        scene: It is given the way to make the call that is interrupted, and makes everything anew each time.
        poll: Any poll on the backend in question, which tells whose code has steps.
        others: What else has, beside the library and the backend.

    Returns:
        How many steps there are.
    """
    kinds: list[type] = [kind for kind in type(poll.backend).__mro__ if issubclass(kind, Backend)]
    kinds += [type(one) for one in others]
    packages = frozenset(kind.__module__.partition(".")[0] for kind in kinds)  # that of Backend is the library's
    for step in count(1):
        interrupter = Interrupter(step, packages)
        scene(interrupter)
        if interrupter.missed:
            return step - 1
    raise AssertionError("count() has no end")


def calls_of(poll: Poll[object], source: Source) -> dict[str, Callable[[], object]]:
    """Give the calls that can be interrupted, by name; *source* is registered, but for "register"."""
    return {
        "poll": lambda: poll.poll(SIGNAL_WAIT),
        "register": lambda: poll.register(source, "near", Interest.READABLE),
        "reregister": lambda: poll.reregister(source, "near", Interest.READABLE, Mode.LEVEL),
        "rearm": lambda: poll.rearm(source),
        "deregister": lambda: poll.deregister(source),
        "Waker": lambda: Waker(poll, "third"),
    }


def _at_step(
    step: int, call: Callable[[], T], handler: Callable[[], object], packages: frozenset[str]
) -> Interrupted[T]:
    outcome: Interrupted[T] = Interrupted()
    left = step
    last: dict[FrameType, str] = {}

    def step_at(frame: FrameType) -> None:
        nonlocal left
        if outcome.where is None:
            left -= 1
            if left == 0:
                outcome.where = f"in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"
                handler()

    def watch(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "opcode":
            before = last.get(frame, "")
            last[frame] = _names(frame.f_code)[frame.f_lasti]
            # CALL, CALL_FUNCTION_EX, CALL_KW, JUMP_BACKWARD
            if before.startswith(("CALL", "JUMP_BACKWARD")):
                step_at(frame)
        return watch

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in packages or _is_finaliser(frame) or (frame.f_back and _is_finaliser(frame.f_back)):
            return None
        frame.f_trace = watch  # 3.13 gives no opcodes to a frame that has none yet
        frame.f_trace_opcodes = True
        step_at(frame)
        return watch

    before = sys.gettrace()
    collecting = gc.isenabled()
    gc.disable()  # or finalisers count as steps
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for one such frame when tracing begins
    sys.settrace(enter)
    try:
        outcome.returned = call()
    except Exception as error:
        outcome.error = error.with_traceback(None)  # its frames would keep alive what the call had in hand
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
        last.clear()
    return outcome


def _is_finaliser(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__del__"


@cache
def _names(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}
