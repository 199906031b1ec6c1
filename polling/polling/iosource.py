"""The bridge for descriptors that are not of ``polling.net``: TLS sockets, terminals, other libraries' objects."""

from __future__ import annotations

import sys

from polling._report import ReportingSource
from polling._typing import TYPE_CHECKING
from polling.event import Interest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from polling.backend import Backend, HasFileno

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["IoSource"]


class IoSource(ReportingSource):
    """Wraps anything with a descriptor, so that it can be watched with ``Mode.EDGE`` on every backend.

    Do the I/O through ``do_io``, or say ``drained`` after I/O of your own that would block. Where edges are the
    kernel's own both cost a call and do nothing more.

    A poll holds it, and so the wrapped object, until it is deregistered or the poll is closed. One of a subclass
    without ``__slots__`` is the caller's to keep, as other sources are.

    Args:
        obj: An object with ``fileno()``, or a bare descriptor. It stays the caller's to close.

    Rules: EDG-05, EDG-07, EDG-13, EDG-17.
    """

    __slots__ = ("_obj", "_watcher")  # and none for weak references: so a poll holds it

    def __init__(self, obj: HasFileno | int) -> None:
        if type(obj) is not int and not hasattr(obj, "fileno"):
            raise TypeError(f"IoSource wraps an int or an object with fileno(), not {type(obj).__name__}")
        self._obj = obj
        self._watcher: tuple[Backend, int] | None = None

    def fileno(self) -> int:
        """Give the number of what is wrapped, -1 if that is closed and says so."""
        obj = self._obj
        return obj if isinstance(obj, int) else obj.fileno()

    def do_io(self, interest: Interest, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``call(*args, **kwargs)`` and take note if it would block.

        BlockingIOError, ``ssl.SSLWantReadError``, ``ssl.SSLWantWriteError`` and a result of None (which raw files
        give) count as would-block and pass on unchanged, as does everything else.

        Args:
            interest: The direction in which *call* goes. TLS may want the other one, and says so itself.

        Raises:
            TypeError: *interest* is something else; *call* was not called. Otherwise what *call* raises.
        """
        if interest.__class__ is not Interest:
            raise TypeError(f"interest must be an Interest, not {interest!r}")
        try:
            result = call(*args, **kwargs)
        except BlockingIOError:
            self._would_block(interest)
            raise
        except OSError as error:
            self._would_block(_wanted(error))
            raise
        if result is None:
            self._would_block(interest)
        return result

    def drained(self, interest: Interest) -> None:
        """Say that I/O of this kind would block: the next readiness is to be reported.

        Saying so wrongly costs one event too many, and never loses one.
        """
        if interest.__class__ is not Interest:
            raise TypeError(f"interest must be an Interest, not {interest!r}")
        self._would_block(interest)

    def __repr__(self) -> str:
        return f"<IoSource {self._obj!r}>"


def _wanted(error: OSError) -> Interest:
    """Tell what a TLS error waits for, without importing ssl for those who have none."""
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        if isinstance(error, ssl.SSLWantReadError):
            return Interest.READABLE
        if isinstance(error, ssl.SSLWantWriteError):
            return Interest.WRITABLE
    return Interest.NONE
