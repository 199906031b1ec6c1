"""From what a caller names to a backend at work.

Ours stand in a table of literal addresses, so that the usual ``Poll()`` reads no package metadata (which costs
12 to 85 ms) and works from a zip, frozen, or on a bare PYTHONPATH. A stranger's comes by an entry point
in the group ``polling.backends``, and is looked for only when the name is none of ours; so it can neither
take one of these names nor become the default.
"""

from __future__ import annotations

import os
import sys
import weakref

from polling._typing import TYPE_CHECKING
from polling.backend import Backend
from polling.errors import UnknownBackendError, UnsupportedError

if TYPE_CHECKING:
    from typing import Final

__all__ = ["available_backends", "backend_names"]

BUILT_IN: Final = {
    "epoll": "polling_backends.epoll:EpollBackend",
    "kqueue": "polling_backends.kqueue:KqueueBackend",
    "poll": "polling_backends.poll:PollBackend",
    "iocp": "polling_backends.iocp:IocpBackend",
}
"""Name and address, best first. The first that runs here is the default."""

ENTRY_POINTS: Final = "polling.backends"
VARIABLE: Final = "POLLING_BACKEND"

_IN_USE: Final[weakref.WeakSet[Backend]] = weakref.WeakSet()


def backend_names() -> tuple[str, ...]:
    """Give the names that ``Poll`` knows: ours, best first, then those of installed packages. Imports none."""
    return (*BUILT_IN, *sorted(_strangers()))


def available_backends() -> dict[str, type[Backend]]:
    """Give the backends that run on this machine, by name, best first.

    One of an installed package that cannot be imported, or asked, is left out, with a RuntimeWarning that says why.
    """
    found: dict[str, type[Backend]] = {}
    for name in backend_names():
        try:
            backend = load_backend(name)
            reason = backend.unavailable_reason()
        except Exception as error:
            if name in BUILT_IN:
                raise
            import warnings

            warnings.warn(f"backend {name!r} is left out: {error!r}", RuntimeWarning, stacklevel=2)
            continue
        if reason is None:
            found[name] = backend
    return found


def load_backend(name: str) -> type[Backend]:
    """Import the backend called *name*, whether or not it can run here.

    Raises:
        UnknownBackendError: There is none of that name.
        TypeError: What its address names is no backend.
    """
    address = BUILT_IN.get(name)
    if address is None:
        address = _strangers().get(name)
    if address is None:
        raise UnknownBackendError(f"there is no backend {name!r}; there are: {', '.join(backend_names())}")
    from importlib import import_module  # after ``import polling``, which is measured

    module, _, attributes = address.partition(":")
    found: object = import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise TypeError(f"backend {name!r} is {address}, which is no subclass of polling.Backend")
    return found


def open_backend(wanted: str | type[Backend] | Backend | None) -> Backend:
    """Make the backend for a new poll. For the errors see ``Poll``."""
    if wanted is None:
        wanted = os.environ.get(VARIABLE) or None
        if wanted is not None:
            try:
                return _open(load_backend(wanted))
            except (UnknownBackendError, UnsupportedError) as error:
                raise type(error)(f"environment variable {VARIABLE}: {error}") from None
        return _open(default_backend())
    if isinstance(wanted, str):
        return _open(load_backend(wanted))
    if isinstance(wanted, type) and issubclass(wanted, Backend):
        return _open(wanted)
    if not isinstance(wanted, Backend):
        raise TypeError(f"backend must be a name, a Backend class or an instance of one, not {wanted!r}")
    if wanted in _IN_USE:
        raise ValueError(f"{wanted!r} already serves a poll; each poll needs its own")
    _IN_USE.add(wanted)
    return wanted


def default_backend() -> type[Backend]:
    """Give the best of ours that runs here.

    Raises:
        UnsupportedError: None does. The message says for each why not.
    """
    reasons = []
    for name in BUILT_IN:
        backend = load_backend(name)
        reason = backend.unavailable_reason()
        if reason is None:
            return backend
        reasons.append(f"{name}: {reason}")
    raise UnsupportedError(f"no backend runs on {sys.platform}: {'; '.join(reasons)}")


def _open(backend: type[Backend]) -> Backend:
    reason = backend.unavailable_reason()
    if reason is not None:
        raise UnsupportedError(f"the {backend.name} backend cannot run here: {reason}")
    made = backend()
    _IN_USE.add(made)
    return made


def _strangers() -> dict[str, str]:
    """Give name and address of the backends of installed packages, ours excepted."""
    from importlib.metadata import entry_points  # a slow import, which the built-in names do without

    return {
        point.name: f"{point.module}:{point.attr or ''}"
        for point in entry_points(group=ENTRY_POINTS)
        if point.name not in BUILT_IN
    }
