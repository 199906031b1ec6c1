"""The errors of the library: one tree, and each leaf is also the built-in error that callers expect.

A call that raises one of these has changed nothing: the registrations, the kernel's set and the
caller's source are as they were before the call.
"""

__all__ = [
    "AlreadyRegisteredError",
    "ChannelClosedError",
    "ChannelFullError",
    "ForkedPollError",
    "InvalidSourceError",
    "NotRegisteredError",
    "PollBusyError",
    "PollClosedError",
    "PollingError",
    "SlabFullError",
    "UnknownBackendError",
    "UnsupportedError",
    "UnsupportedSourceError",
]


class PollingError(Exception):
    """The base of every error that is this library's own."""


class AlreadyRegisteredError(PollingError, FileExistsError):
    """The source, or another live source under its number, is registered (``errno`` is EEXIST)."""


class NotRegisteredError(PollingError, FileNotFoundError):
    """The source is not registered here (``errno`` is ENOENT)."""


class InvalidSourceError(PollingError, ValueError):
    """The source has no usable descriptor: closed, negative, or the poll's own."""


class UnsupportedError(PollingError):
    """This backend, or this machine, cannot give what was asked. Nothing was downgraded."""


class UnsupportedSourceError(UnsupportedError, PermissionError):
    """A descriptor that no readiness facility watches: a regular file, a directory (EPERM)."""


class UnknownBackendError(PollingError, LookupError):
    """No backend has this name. The message lists those that are known."""


class PollClosedError(PollingError, ValueError):
    """The poll was closed, before this call or while it waited."""


class ForkedPollError(PollingError):
    """The poll was made by the parent of this process and belongs to it. Make a new one here."""


class PollBusyError(PollingError):
    """Another call, in another thread or further up this one's stack, waits on this poll."""


class ChannelClosedError(PollingError):
    """The other end of the channel is closed, or this one."""


class ChannelFullError(PollingError):
    """As many messages as the channel's bound allows wait to be drained."""


class SlabFullError(PollingError):
    """The slab holds as many values as its capacity allows."""
