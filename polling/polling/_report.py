"""How a source tells an emulated edge that it was drained: the one hook, and who has it.

poll(2) and completion ports can only sample readiness. "Readable, drained, readable again" between two
waits looks to them like "readable all the time", and no sampling helps: the source has to say when
it would block. Kernels with edges of their own need none of this, and so pay nothing: a source reports only
while it is registered in EDGE at a backend that asked for it.
"""

from __future__ import annotations

from polling._typing import TYPE_CHECKING
from polling.errors import UnsupportedError

if TYPE_CHECKING:
    from polling.backend import Backend
    from polling.event import Interest

__all__ = ["ReportingSource"]


class ReportingSource:
    """A source that reports each would-block to whoever watches it in EDGE.

    A subclass calls ``_would_block`` where I/O said that it would block, and has the slot or attribute
    ``_watcher``: two bases cannot both have slots, and ``socket.socket`` is the other one.
    """

    __slots__ = ()

    _watcher: tuple[Backend, int] | None

    def _report_to(self, backend: Backend | None, fd: int) -> None:
        """Report to *backend* from now on, as descriptor *fd*; to nobody if None.

        Raises:
            UnsupportedError: It reports to another already: one source, one emulated edge.
        """
        watcher = getattr(self, "_watcher", None)
        if backend is not None and watcher is not None and watcher[0] is not backend:
            raise UnsupportedError(
                f"{self!r} is watched with Mode.EDGE by another poll; where edges are emulated, one poll can have it"
            )
        self._watcher = None if backend is None else (backend, fd)  # type: ignore[misc]  # the slot is a subclass's

    def _would_block(self, interest: Interest) -> None:
        """Say that I/O of this kind would block now."""
        watcher = getattr(self, "_watcher", None)  # a slot that was never set has no value
        if watcher is not None and interest:
            backend, fd = watcher
            backend.rearm(fd, interest)
