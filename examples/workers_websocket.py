"""WebSocket for the server of ``workers.py``, by wsproto; and a server that sends every message back.

    python examples/workers_websocket.py --port 8080
    python -m websockets ws://127.0.0.1:8080/

A connection begins as one of HTTP. When a request asks for it, this protocol takes the place of that one.

A message is text or bytes, whole or in fragments, and has a limit: 16 MiB, of text as many characters, unless told
otherwise. Who sends more is dismissed with close code 1009. The other codes: 1001 when the server ends; 1002 and 1007
for what is no WebSocket or no UTF-8, as wsproto finds out; 1011 when the session has raised; else the client's own.

A browser lets any page connect to any server, and sends the page's origin along. That must be this server, under a
name it was told, for a stranger can let a name of his own point to 127.0.0.1. Who sends none is no browser.
"""

from __future__ import annotations

import io
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from functools import partial
from urllib.parse import urlsplit

import h11
from workers import serve, worker_options
from workers_connection import Connection, Protocol
from workers_http import Http, Response
from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import ConnectionState
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

MESSAGE = 16 << 20
Post = Callable[[str | bytes], None]


class Session(ABC):
    """What one client's WebSocket is for."""

    @abstractmethod
    def received(self, message: str | bytes) -> None:
        """Take a message. What it raises ends the connection."""

    def closed(self) -> None:  # noqa: B027  # not everybody has to do anything about it
        """The client is gone. What is still posted goes nowhere."""


class WebSocket(Protocol):
    """Carries messages between a client and a session, which gets a way to post to the client when it is made."""

    def __init__(
        self,
        connection: Connection,
        request: h11.Request,
        early: bytes,
        *,
        session: Callable[[Post], Session],
        names: Container[str | None],
        limit: int = MESSAGE,
    ) -> None:
        self._connection = connection
        self._request = request
        self._early = early  # what came with the request
        self._make_session = session
        self._names = names
        self._limit = limit
        self._session: Session | None = None  # once it is accepted
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._text = io.StringIO()  # the message that is on its way is in one of these
        self._bytes = io.BytesIO()

    def receive(self, data: bytes) -> None:
        if data:
            self._websocket.receive_data(data)
        else:
            self.finished = True

    def answer(self) -> bytes | None:
        """Send what was posted, one message a call; else go through wsproto's events up to one with an answer."""
        if self._session is None:
            return None if self.finished else self._open()
        mail = self._connection.mail
        while not self.finished:
            if mail:
                return self._websocket.send(_frame(mail.popleft()))
            event = next(self._websocket.events(), None)
            if event is None:
                break
            answer = self._take(event)
            if answer is not None:
                return answer
        return None

    def goodbye(self) -> bytes:
        return b"" if self._session is None or self.finished else self._close(CloseReason.GOING_AWAY)

    def closed(self) -> None:
        if self._session is not None:
            self._session.closed()

    def _open(self) -> bytes:
        """Answer the request that asked for all this."""
        try:
            self._websocket.initiate_upgrade_connection(list(self._request.headers), self._request.target)
        except (RemoteProtocolError, h11.LocalProtocolError, UnicodeError):
            return self._refuse(400)
        next(self._websocket.events())  # it says what we know
        if not self._is_welcome():
            return self._refuse(403)
        accepted = self._websocket.send(events.AcceptConnection())
        self._websocket.receive_data(self._early)
        self._session = self._make_session(self._connection.post)
        return accepted

    def _refuse(self, status: int) -> bytes:
        self.finished = True
        headers = [(b"connection", b"close"), (b"sec-websocket-version", b"13")]
        return self._websocket.send(events.RejectConnection(status_code=status, headers=headers))

    def _is_welcome(self) -> bool:
        headers = {name: value.decode("latin-1") for name, value in self._request.headers}
        origin = headers.get(b"origin")
        if origin is None:
            return True
        try:
            place = urlsplit(origin)
            return place.netloc == headers[b"host"] and place.hostname in self._names
        except ValueError:  # no address at all
            return False

    def _take(self, event: events.Event) -> bytes | None:
        """See to one event; give what has to be sent for it, if anything."""
        if isinstance(event, (events.TextMessage, events.BytesMessage)):
            return self._gather(event)
        if isinstance(event, events.Ping):
            return self._websocket.send(event.response())
        if isinstance(event, events.CloseConnection):
            self.finished = True
            if self._websocket.state is ConnectionState.REMOTE_CLOSING:
                return self._websocket.send(event.response())
            return self._close(event.code, event.reason)  # it was wsproto's idea, after nonsense from the client
        return None

    def _gather(self, event: events.TextMessage | events.BytesMessage) -> bytes | None:
        """Add a piece to the message, and hand it on when it is whole."""
        buffer: io.StringIO | io.BytesIO
        if isinstance(event, events.TextMessage):
            buffer = self._text
            self._text.write(event.data)
        else:
            buffer = self._bytes
            self._bytes.write(event.data)
        if buffer.tell() > self._limit:
            return self._close(CloseReason.MESSAGE_TOO_BIG, f"more than {self._limit}")
        if event.message_finished and self._session is not None:
            message = buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
            try:
                self._session.received(message)
            except Exception:
                traceback.print_exc()
                return self._close(CloseReason.INTERNAL_ERROR)
        return None

    def _close(self, code: int, reason: str | None = None) -> bytes:
        self.finished = True
        return self._websocket.send(events.CloseConnection(code=code, reason=reason))


def _frame(message: str | bytes) -> events.Event:
    return events.TextMessage(data=message) if isinstance(message, str) else events.BytesMessage(data=message)


class Echo(Session):
    """Sends every message back."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def received(self, message: str | bytes) -> None:
        self._post(message)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = worker_options("Send back what comes by WebSocket, in several threads.").parse_args()
    upgrade = partial(WebSocket, session=Echo, names=("127.0.0.1", "localhost", arguments.host))
    serve(arguments, partial(Http, application=lambda _: Response(b"This is for WebSocket.\n", 426), upgrade=upgrade))


if __name__ == "__main__":
    main()
