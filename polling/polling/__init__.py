"""I/O readiness for Python: register sources under tokens, wait, get events, on every platform alike.

    poll = Poll()
    poll.register(source, token, Interest.READABLE)
    for event in poll.poll():
        event.token, event.readable

``polling.net`` has sockets and pipes made for it; plain sockets and descriptors work as well.
``python -m polling`` says which backends this machine has.
"""

from polling._loader import available_backends, backend_names
from polling._typing import TYPE_CHECKING
from polling.backend import Backend, Capability, Source
from polling.errors import (
    AlreadyRegisteredError,
    ChannelClosedError,
    ChannelFullError,
    ForkedPollError,
    InvalidSourceError,
    NotRegisteredError,
    PollBusyError,
    PollClosedError,
    PollingError,
    SlabFullError,
    UnknownBackendError,
    UnsupportedError,
    UnsupportedSourceError,
)
from polling.event import Event, Interest, Mode, Readiness
from polling.iosource import IoSource
from polling.poll import Poll
from polling.user import UserSource
from polling.waker import Waker

if TYPE_CHECKING:
    from polling.channel import Channel, Receiver, Sender
    from polling.loop import EventLoop, Handler
    from polling.signals import Signals
    from polling.slab import Slab
    from polling.timer import Timeout, Timer

__all__ = [
    "AlreadyRegisteredError",
    "Backend",
    "Capability",
    "Channel",
    "ChannelClosedError",
    "ChannelFullError",
    "Event",
    "EventLoop",
    "ForkedPollError",
    "Handler",
    "Interest",
    "InvalidSourceError",
    "IoSource",
    "Mode",
    "NotRegisteredError",
    "Poll",
    "PollBusyError",
    "PollClosedError",
    "PollingError",
    "Readiness",
    "Receiver",
    "Sender",
    "Signals",
    "Slab",
    "SlabFullError",
    "Source",
    "Timeout",
    "Timer",
    "UnknownBackendError",
    "UnsupportedError",
    "UnsupportedSourceError",
    "UserSource",
    "Waker",
    "available_backends",
    "backend_names",
]

_MODULES = {
    "Channel": "channel",
    "EventLoop": "loop",
    "Handler": "loop",
    "Receiver": "channel",
    "Sender": "channel",
    "Signals": "signals",
    "Slab": "slab",
    "Timeout": "timer",
    "Timer": "timer",
}
"""What is imported when it is first asked for, and from where: not everybody needs it."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'polling' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"polling.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
