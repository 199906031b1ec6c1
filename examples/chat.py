"""A chat in the browser: a page, and WebSocket between whoever has it open. Served by several threads.

    python examples/chat.py --port 8080        and then open http://127.0.0.1:8080/ in two tabs

The page is chat.html, chat.css and chat.js. It and this server send each other objects of JSON. The page says:

    {"kind": "join", "name", "key"}     I am here. The key is the tab's secret: whoever has it is the same person, who
                                        has reloaded the page, or lost the connection
    {"kind": "say", "text"}

and the server:

    {"kind": "welcome", "name", "people", "history"}    to whoever has joined
    {"kind": "people", "people", "news"}                to the others: somebody has come or gone
    {"kind": "said", "id", "name", "text", "at"}        to all; "at" is in seconds since 1970
    {"kind": "refused", "why", "out"}                   "out": you are not in the room, or not any more

Workers call the sessions, many at once, so the room has a lock. Under it messages are posted to everybody, so all have
them in the same order. That never waits for a client: to post is to leave something with a connection.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from threading import Lock
from time import time, time_ns

from workers import serve, worker_options
from workers_connection import Connection, Protocol
from workers_http import TEXT, Application, Http, Request, Response
from workers_websocket import Post, Session, WebSocket

NAME = 24  # characters of a name, at most
TEXT_LENGTH = 2000  # of what is said
KEY = 64  # of a key
MESSAGE = 16 * 1024  # of JSON
HISTORY = 100  # messages that somebody who comes later gets to read

PAGE = {
    "/": ("chat.html", "text/html"),
    "/chat.css": ("chat.css", "text/css"),
    "/chat.js": ("chat.js", "text/javascript"),
}
POLICY = """
    default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'
"""
"""What the page may do: even if somebody's words got into it as a script, it would not run, nor reach anybody else."""


class Room:
    """Who is here, and what was said."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._members: dict[str, Member] = {}  # by key
        self._history: deque[Mapping[str, object]] = deque(maxlen=HISTORY)
        self._began = time_ns()  # part of messages' ids, so that none comes again after a restart
        self._said = 0

    def join(self, member: Member, name: str, key: str) -> None:
        """Let somebody in, or back in. ValueError: not under this name."""
        with self._lock:
            if member.key:
                raise ValueError("You have joined already.")
            others = [other for other in self._members if other != key]
            if any(self._members[other].name.casefold() == name.casefold() for other in others):
                raise ValueError(f"There is somebody called {name} already.")
            former = self._members.get(key)
            member.name, member.key = name, key
            self._members[key] = member
            member.tell("welcome", name=name, people=self._people(), history=[*self._history])
            if former is None:
                self._tell_others(member, f"{name} has come.")
            else:
                former.tell("refused", why="You have joined in another place.", out=True)

    def leave(self, member: Member) -> None:
        """Let somebody go, unless there is a later connection in the place of this one."""
        with self._lock:
            if self._members.get(member.key) is member:
                del self._members[member.key]
                self._tell_others(member, f"{member.name} has gone.")

    def say(self, member: Member, text: str) -> None:
        """Tell everybody, and remember. ValueError: who is not in the room cannot speak."""
        with self._lock:
            if self._members.get(member.key) is not member:
                raise ValueError("You are not in the room.")
            self._said += 1
            said = {"id": f"{self._began}-{self._said}", "name": member.name, "text": text, "at": time()}
            self._history.append(said)
            for other in self._members.values():
                other.tell("said", **said)

    def _people(self) -> list[str]:
        return sorted((member.name for member in self._members.values()), key=str.casefold)

    def _tell_others(self, member: Member, news: str) -> None:
        for other in self._members.values():
            if other is not member:
                other.tell("people", people=self._people(), news=news)


class Member(Session):
    """One tab."""

    def __init__(self, room: Room, post: Post) -> None:
        self._room = room
        self._post = post
        self.name = ""
        self.key = ""

    def received(self, message: str | bytes) -> None:
        """Do what is asked for, or say why not."""
        try:
            match json.loads(message):
                case {"kind": "join", "name": str(name), "key": str(key)}:
                    self._room.join(self, _checked_name(name), _checked_key(key))
                case {"kind": "say", "text": str(text)}:
                    self._room.say(self, _checked_text(text))
                case _:
                    raise ValueError("This is no message that I know.")
        except (ValueError, RecursionError) as error:
            self.tell("refused", why=str(error), out=not self.key)

    def tell(self, kind: str, **content: object) -> None:
        """Post a message to the tab."""
        self._post(json.dumps({"kind": kind, **content}))

    def closed(self) -> None:
        self._room.leave(self)


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not 1 <= len(name) <= NAME or not name.isprintable():
        raise ValueError(f"A name has 1 to {NAME} characters, all of them visible.")
    return name


def _checked_key(key: str) -> str:
    if not 16 <= len(key) <= KEY:
        raise ValueError(f"A key has 16 to {KEY} characters.")
    return key


def _checked_text(text: str) -> str:
    if not 1 <= len(text) <= TEXT_LENGTH or not text.strip():
        raise ValueError(f"A message has 1 to {TEXT_LENGTH} characters.")
    return text


def pages(folder: Path) -> Application:
    """Make what answers requests for the page."""
    headers = (
        ("Content-Security-Policy", " ".join(POLICY.split())),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-cache"),
    )
    responses = {
        path: Response((folder / name).read_bytes(), 200, (("Content-Type", f"{kind}; charset=utf-8"), *headers))
        for path, (name, kind) in PAGE.items()
    }

    def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(b"There is only something to read.\n", 405, (TEXT, ("Allow", "GET, HEAD")))
        return responses.get(request.path) or Response(b"There is nothing here.\n", 404)

    return answer


def chat(names: Container[str | None]) -> Callable[[Connection], Protocol]:
    """Make a room, and what lets clients into it."""
    upgrade = partial(WebSocket, session=partial(Member, Room()), names=names, limit=MESSAGE)
    return partial(Http, application=pages(Path(__file__).parent), upgrade=upgrade, limit=0)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = worker_options("A chat in the browser, served by several threads.")
    parser.add_argument("--name", action="append", default=[], help="under which browsers know this machine, too")
    arguments = parser.parse_args()
    serve(arguments, chat({"127.0.0.1", "localhost", arguments.host, *arguments.name}))


if __name__ == "__main__":
    main()
