"""The few lines that touch ``select.kqueue``, behind a façade of plain tuples.

The backend above it speaks of tuples of five ints, so all its logic runs, is type-checked and is tried against wrong
variants on every machine, over a kernel that is simulated; this module has no logic of its own.

Some facts about ``select.kqueue``:

  * ``control`` applies the changes and then collects events, in one call. A change that fails, or that asks for a
    receipt, puts an event with EV_ERROR into the answer, whose ``data`` is the errno, 0 for success. A call that has
    answered in this way collects and waits for nothing more. Without room for the answer the first failure
    is raised, and the changes behind it are not made.
  * It takes the timeout in seconds, rounds up to nanoseconds, goes on after EINTR for the rest of it, and releases the
    interpreter lock.
  * ``select`` has no names for EV_RECEIPT and EVFILT_USER. The first is the same number on every system that has it,
    the second is not.
  * No child inherits the descriptor over a fork, and it is close-on-exec. The object knows nothing of forks before
    CPython 3.13 (and late releases of 3.11 and 3.12): when it dies in a child, it closes what has its number there.
  * ``close`` closes the number at once, even if another thread is inside ``control`` and about to use it. When the last
    reference goes, it is closed, too, and then nobody is inside.

What follows for ``control`` of the class below: from the kernel's answer to the tuples there must be no point at which
the handler of a signal can raise, for the answer would be lost, and with it edges and oneshots that never come
again. CPython looks for signals when a call from Python code has returned, but not between the stages of an
iterator written in C, nor between such an iterator and the variable of the loop over it (see the top of
``polling.poll``). So to ask and to turn the answer into tuples are the stages of one iterator.

References: kqueue(2) of FreeBSD 15 and macOS 15; selectmodule.c of CPython 3.11 to 3.13; the rules SIG-02, CLS-04,
FRK-02.
"""

from __future__ import annotations

import select
import sys
from functools import partial
from itertools import starmap
from operator import attrgetter

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, Protocol, TypeAlias
else:
    Protocol = object

__all__ = ["Kernel", "Kevent", "SystemKernel"]

Kevent: TypeAlias = "tuple[int, int, int, int, int]"
"""``(ident, filter, flags, fflags, data)``: the same shape for a change and for an event."""


class Kernel(Protocol):
    """A kqueue."""

    user_filter: int | None
    """The number of EVFILT_USER; ``None`` where there is none."""

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        """Apply *changes*, then give at most *most* events, waiting for the first at most *timeout* seconds.

        Args:
            changes: Applied in their order. What comes of one is in the answer if it failed or has EV_RECEIPT.
            most: 0 collects and waits for nothing, and raises the first failure of a change.
            timeout: ``None`` waits without limit, 0 not at all.

        Raises:
            OSError: EBADF: somebody closed the kqueue's number.
            ValueError: It is closed, by ``close``.
        """

    def fileno(self) -> int:
        """Give its number, which is readable while there are events."""

    def close(self) -> None:
        """Let go of it. The number is released when the last call of ``control`` has left."""


class _Kqueue(Protocol):
    """``select.kqueue``, as far as it is used here, for type checkers of systems that have none."""

    def control(self, changes: list[_Event] | None, most: int, timeout: float | None, /) -> list[_Event]: ...
    def fileno(self) -> int: ...


class _Event(Protocol):
    """``select.kevent``, likewise."""


_plain: Final[Callable[[_Event], Kevent]] = attrgetter("ident", "filter", "flags", "fflags", "data")
_all_plain: Final = partial(map, _plain)


class SystemKernel:
    """The kqueue of this machine."""

    user_filter: int | None = -10 if sys.platform == "darwin" else -11 if sys.platform.startswith("freebsd") else None

    def __init__(self) -> None:
        # Attributes that type checkers see on the BSDs only.
        self._kqueue: _Kqueue | None = getattr(select, "kqueue")()  # noqa: B009
        self._event: Callable[[int, int, int, int, int], _Event] = getattr(select, "kevent")  # noqa: B009

    def control(self, changes: Sequence[Kevent], most: int, timeout: float | None) -> list[Kevent]:
        kqueue = self._kqueue
        if kqueue is None:
            raise ValueError("this kqueue is closed")
        try:
            asked = [*starmap(self._event, changes)] if changes else None
            for answer in map(list, map(_all_plain, starmap(kqueue.control, ((asked, most, timeout),)))):
                return answer
        finally:
            del kqueue  # which a traceback would keep open
        raise AssertionError("one question, one answer")

    def fileno(self) -> int:
        if self._kqueue is None:
            raise ValueError("this kqueue is closed")
        return self._kqueue.fileno()

    def close(self) -> None:
        self._kqueue = None
