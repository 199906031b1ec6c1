"""The kqueue backend on libkqueue, for a Python whose ``select`` was built against it: see README.md beside this."""

from __future__ import annotations

import sys
import time

from polling_backends._kqueue_kernel import Kernel, SystemKernel
from polling_backends.kqueue import KqueueBackend
from polling_conformance.ends import open_descriptors

__all__ = ["OnLibkqueue"]


class _Libkqueue(SystemKernel):
    user_filter: int | None = -11

    def is_in_use(self) -> bool:
        """Tell whether a call is inside, which has a reference more than this object and this very question."""
        return sys.getrefcount(self._kqueue) > 2


class OnLibkqueue(KqueueBackend):
    """A kqueue of libkqueue's has several descriptors, and a thread that closes them some time after the kqueue is."""

    def __init__(self) -> None:
        before = open_descriptors()
        super().__init__()
        self._lasting = open_descriptors().items() - before.items()
        self._internal = (*{*self._internal, *dict(self._lasting)},)

    def _open_kernel(self) -> Kernel:
        self._libkqueue = _Libkqueue()
        return self._libkqueue

    def close(self) -> None:
        # A call that is inside may be around this one, or about to leave.
        until = time.monotonic() + (0.1 if self._libkqueue.is_in_use() else 5)
        super().close()
        # As far as they can be told from others: there is a number in a pipe's name.
        own = {(fd, what) for fd, what in self._lasting if what.startswith(("pipe:", "socket:"))}
        while own & open_descriptors().items() and time.monotonic() < until:
            time.sleep(0.001)
