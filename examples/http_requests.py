"""Where one HTTP request ends and the next begins: what a server must know of the protocol to say hello.

It is here so that http_hello.py shows nothing but polling, and has to be fast, as benchmarks compare what is around it.
A server that wants to know what the requests say uses a library, such as h11.
"""

from __future__ import annotations

from functools import lru_cache

BLANK_LINE = b"\r\n\r\n"
MAX_HEAD = 64 * 1024  # bytes; a client that sends more without a blank line is not speaking HTTP


@lru_cache(maxsize=64)  # clients repeat themselves
def parse_head(head: bytes) -> tuple[bool, int]:
    """Tell whether the client wants to go on after this request, and how long the request's body is."""
    request_line, *fields = head.lower().lstrip(b"\r\n").split(b"\r\n")
    headers = {name: value.strip() for name, _, value in (field.partition(b":") for field in fields)}
    connection = headers.get(b"connection", b"")
    keep_alive = b"close" not in connection if request_line.endswith(b"http/1.1") else b"keep-alive" in connection
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit() or len(length) > 18:
        return False, 0  # no telling where the next request would begin, so this one is the last
    return keep_alive, int(length)


class Requests:
    """Finds the requests in what one client sends, until it is ``finished``: it wants or deserves no more answers."""

    __slots__ = ("_body", "_last", "_rest", "finished")

    def __init__(self) -> None:
        self.finished = False
        self._rest = b""  # a head that is not complete
        self._body = 0  # bytes still to come of the body of a request whose head was
        self._last = False  # whether that request is the last

    def feed(self, data: bytes) -> int:
        """Take in what came, and return how many requests that completes."""
        data = self._rest + data
        self._rest = b""
        requests, position, size = 0, self._body, len(data)
        if 0 < position <= size:
            requests, self.finished = 1, self._last
        while position < size and not self.finished:
            end = data.find(BLANK_LINE, position)
            if end < 0:
                self._rest = data[position:]
                self.finished = len(self._rest) > MAX_HEAD
                break
            keep_alive, body = parse_head(data[position:end])
            position = end + len(BLANK_LINE) + body
            if position > size:
                self._last = not keep_alive
                break
            requests += 1
            self.finished = not keep_alive
        self._body = max(position - size, 0)
        return requests
