"""HTTP/1.1 for the server of ``workers.py``, by h11; and a server with some work to do: it hashes what is posted.

    python examples/workers_http.py --workers 2 --port 8080
    curl --data-binary @README.md http://127.0.0.1:8080/

h11 parses requests, keeps to the order of things and says what comes next, but does no I/O. So all that is left to do
here is to ask it for events, and to have the application answer. Requests that a client sends at once wait in h11, and
are answered one after the other, for the next is not looked at before the last answer was sent.

Hashing lets go of the interpreter lock, so two workers do it on two cores: see docs/threads.md.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import h11
from workers import serve, worker_options
from workers_connection import Connection, Protocol

BODY = 16 << 20  # bytes that a request may bring, unless told otherwise
TEXT = ("Content-Type", "text/plain; charset=utf-8")


class Request(NamedTuple):
    """What a client asks for."""

    method: str
    path: str
    body: bytes


class Response(NamedTuple):
    """What it gets."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (TEXT,)


Application = Callable[[Request], Response]
"""Makes a response of a request, in several threads at once. If it raises, the client gets a 500, and goes on."""

Upgrade = Callable[[Connection, h11.Request, bytes], Protocol]
"""Makes a protocol to go on with, of a request for WebSocket and of what was received after it."""


class Http(Protocol):
    """Asks an application for the answers."""

    patience = 60.0

    def __init__(
        self, connection: Connection, *, application: Application, upgrade: Upgrade | None = None, limit: int = BODY
    ) -> None:
        self._connection = connection
        self._application = application
        self._upgrade = upgrade
        self._limit = limit
        self._h11 = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None  # of the request at hand, and its body
        self._body = bytearray()

    def receive(self, data: bytes) -> None:
        self._h11.receive_data(data)

    def answer(self) -> bytes | None:
        """Go through h11's events up to the first that has an answer."""
        while not self.finished:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                return self._send(_plain(error.error_status_hint), last=True)
            if isinstance(event, h11.Request):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._limit:
                    return self._send(_plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE), last=True)
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                return self._reply(self._head)
            elif isinstance(event, h11.ConnectionClosed):
                self.finished = True
            elif self._h11.they_are_waiting_for_100_continue:
                return self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
            else:
                break
        return None

    def _reply(self, head: h11.Request) -> bytes:
        """Answer a request that is complete."""
        if self._upgrade is not None and _asks_for_websocket(head):
            self._connection.protocol = self._upgrade(self._connection, head, self._h11.trailing_data[0])
            return b""
        try:
            path = head.target.decode("ascii").partition("?")[0]
            response = self._application(Request(head.method.decode("ascii"), path, bytes(self._body)))
        except Exception:
            traceback.print_exc()
            response = _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
        return self._send(response)

    def _send(self, response: Response, *, last: bool = False) -> bytes:
        """Put a response into bytes; after the last one the connection is closed."""
        headers = [*response.headers, ("Content-Length", str(len(response.body))), ("Date", formatdate(usegmt=True))]
        if last:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        data = self._h11.send(h11.Response(status_code=response.status, headers=headers, reason=reason))
        if self._head is None or self._head.method != b"HEAD":
            data += self._h11.send(h11.Data(data=response.body))
        self._head = None
        self._body = bytearray()
        data += self._h11.send(h11.EndOfMessage())
        if self._h11.our_state is h11.MUST_CLOSE:
            self.finished = True
        else:
            self._h11.start_next_cycle()
        return data


def _plain(status: int) -> Response:
    return Response(f"{HTTPStatus(status).phrase}\n".encode(), status)


def _asks_for_websocket(head: h11.Request) -> bool:
    return head.method == b"GET" and any(
        name == b"upgrade" and value.lower() == b"websocket" for name, value in head.headers
    )


def hash_body(request: Request, *, times: int) -> Response:
    """Answer with the hash of so many copies of the body."""
    if request.method != "POST":
        return Response(
            b"Post something, and get its hash.\n", HTTPStatus.METHOD_NOT_ALLOWED, (TEXT, ("Allow", "POST"))
        )
    digest = hashlib.blake2b()
    for _ in range(times):
        digest.update(request.body)
    return Response(digest.hexdigest().encode() + b"\n")


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = worker_options("Hash what is posted, in several threads.")
    parser.add_argument("--times", type=int, default=10, help="copies of a body to hash (default: %(default)s)")
    arguments = parser.parse_args()
    serve(arguments, partial(Http, application=partial(hash_body, times=arguments.times)))


if __name__ == "__main__":
    main()
