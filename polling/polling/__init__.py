"""I/O readiness for Python: register sources under tokens, wait, get events, on every platform alike.

    poll = Poll()
    poll.register(source, token, Interest.READABLE)
    for event in poll.poll():
        event.token, event.readable

``polling.net`` has sockets and pipes made for it; plain sockets and descriptors work as well.
``python -m polling`` says which backends this machine has.
"""

from polling._loader import available_backends, backend_names
from polling.backend import Backend, Capability, Source
from polling.errors import (
    AlreadyRegisteredError,
    ForkedPollError,
    InvalidSourceError,
    NotRegisteredError,
    PollBusyError,
    PollClosedError,
    PollingError,
    UnknownBackendError,
    UnsupportedError,
    UnsupportedSourceError,
)
from polling.event import Event, Interest, Mode, Readiness
from polling.iosource import IoSource
from polling.poll import Poll
from polling.user import UserSource
from polling.waker import Waker

__all__ = [
    "AlreadyRegisteredError",
    "Backend",
    "Capability",
    "Event",
    "ForkedPollError",
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
    "Source",
    "UnknownBackendError",
    "UnsupportedError",
    "UnsupportedSourceError",
    "UserSource",
    "Waker",
    "available_backends",
    "backend_names",
]
