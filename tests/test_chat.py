"""The chat without a browser, on every backend: what its server says to whom. tests/browser.py has the page."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import chat
import pytest
from in_thread import serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

import polling

PATIENCE = 30.0  # seconds to wait for what must come


@pytest.fixture(params=sorted(polling.available_backends()))
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A server on each backend."""
    with serving(str(request.param), chat.chat({"127.0.0.1"})) as address:
        yield address


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Tab:
    """What a tab is to the server."""

    def __init__(self, stack: ExitStack, address: tuple[str, int]) -> None:
        host, port = address
        self.socket: ClientConnection = stack.enter_context(
            connect(
                f"ws://{host}:{port}/chat",
                additional_headers={"Origin": f"http://{host}:{port}"},
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
                ping_interval=None,
                proxy=None,
            )
        )

    def send(self, **message: object) -> None:
        self.socket.send(json.dumps(message))

    def receive(self, kind: str) -> dict[str, Any]:
        """Take the next message, which must be of this kind."""
        message: dict[str, Any] = json.loads(self.socket.recv(PATIENCE))
        assert message.pop("kind") == kind, message
        return message

    def join(self, name: str) -> dict[str, Any]:
        self.send(kind="join", name=name, key=key_of(name))
        return self.receive("welcome")

    def say(self, text: str) -> None:
        self.send(kind="say", text=text)


def key_of(name: str) -> str:
    return name.casefold().ljust(16, "*")


def get(address: tuple[str, int], path: str, method: str = "GET") -> HTTPResponse:
    client = HTTPConnection(*address, timeout=PATIENCE)
    client.request(method, path, headers={"Connection": "close"})
    return client.getresponse()


def test_everybody_hears_everything_in_one_order(address: tuple[str, int], stack: ExitStack) -> None:
    ann, bob = Tab(stack, address), Tab(stack, address)
    assert ann.join("Ann") == {"name": "Ann", "people": ["Ann"], "history": []}
    assert bob.join(" bob \t the  builder ")["people"] == ["Ann", "bob the builder"]
    assert ann.receive("people") == {"people": ["Ann", "bob the builder"], "news": "bob the builder has come."}
    for number in range(20):
        ann.say(f"{number} from Ann")
        bob.say(f"{number} from Bob")
    heard = [ann.receive("said") for _ in range(40)]
    assert [bob.receive("said") for _ in range(40)] == heard
    assert [said["text"] for said in heard if said["name"] == "Ann"] == [f"{number} from Ann" for number in range(20)]
    assert len({said["id"] for said in heard}) == 40
    assert Tab(stack, address).join("Cid")["history"] == heard
    bob.receive("people")
    ann.receive("people")
    bob.socket.close()
    assert ann.receive("people") == {"people": ["Ann", "Cid"], "news": "bob the builder has gone."}


def test_who_only_listens_hears_at_once(address: tuple[str, int], stack: ExitStack) -> None:
    tabs = [Tab(stack, address) for _ in range(3)]
    for number, tab in enumerate(tabs):
        tab.join(f"Tab {number}")
        for earlier in tabs[:number]:
            earlier.receive("people")
    for text in ("one", "two", "three"):  # each is said when all the others rest
        tabs[0].say(text)
        assert [tab.receive("said")["text"] for tab in tabs] == [text] * 3


def test_a_name_is_one_person_s(address: tuple[str, int], stack: ExitStack) -> None:
    ann, other = Tab(stack, address), Tab(stack, address)
    ann.join("Ann")
    other.send(kind="join", name="ANN", key=key_of("other"))
    assert other.receive("refused") == {"why": "There is somebody called ANN already.", "out": True}
    other.say("I am not here")
    assert other.receive("refused") == {"why": "You are not in the room.", "out": True}
    assert other.join("Other")["people"] == ["Ann", "Other"]


def test_who_comes_back_takes_the_place_of_who_was_there(address: tuple[str, int], stack: ExitStack) -> None:
    bob, old, new = Tab(stack, address), Tab(stack, address), Tab(stack, address)
    bob.join("Bob")
    old.join("Ann")
    bob.receive("people")
    assert new.join("Ann")["people"] == ["Ann", "Bob"]
    assert old.receive("refused")["out"]
    old.say("still here?")
    assert old.receive("refused")["why"] == "You are not in the room."
    old.socket.close()
    new.say("here I am")
    new.receive("said")
    assert bob.receive("said")["text"] == "here I am"  # and nobody has come or gone
    new.send(kind="join", name="Anna", key=key_of("Anna"))
    assert new.receive("refused") == {"why": "You have joined already.", "out": False}


@pytest.mark.parametrize("name", ["", " ", "x" * (chat.NAME + 1), "a\0b", "Ann\u202e", "\ud800"])
def test_names_that_cannot_be_seen_are_refused(address: tuple[str, int], stack: ExitStack, name: str) -> None:
    tab = Tab(stack, address)
    tab.send(kind="join", name=name, key=key_of("somebody"))
    assert tab.receive("refused")["why"].startswith("A name has")


def test_nonsense_is_refused_and_does_no_harm(address: tuple[str, int], stack: ExitStack) -> None:
    tab = Tab(stack, address)
    tab.send(kind="join", name="Ann", key="short")
    assert tab.receive("refused")["why"].startswith("A key has")
    tab.join("Ann")
    for nonsense in ("", "{", "[]", '{"kind": "say"}', '{"kind": "say", "text": 1}', "[" * 10_000, b"\xff"):
        tab.socket.send(nonsense)
        assert not tab.receive("refused")["out"]
    for text in ("", " \n", "x" * (chat.TEXT_LENGTH + 1)):
        tab.say(text)
        assert tab.receive("refused")["why"].startswith("A message has")
    for text in ("x" * chat.TEXT_LENGTH, "<script>alert(1)</script>", "\ud800", "a\u2028b"):
        tab.say(text)
        assert tab.receive("said")["text"] == text
    tab.socket.send("x" * (chat.MESSAGE + 1))
    with pytest.raises(ConnectionClosed) as caught:
        tab.socket.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


def test_the_history_has_an_end(address: tuple[str, int], stack: ExitStack) -> None:
    tab = Tab(stack, address)
    tab.join("Ann")
    for number in range(chat.HISTORY + 5):
        tab.say(str(number))
        tab.receive("said")
    history = Tab(stack, address).join("Bob")["history"]
    assert [said["text"] for said in history] == [str(number) for number in range(5, chat.HISTORY + 5)]


def test_the_page_needs_nothing_from_elsewhere(address: tuple[str, int]) -> None:
    texts = []
    for path, (_, kind) in chat.PAGE.items():
        response = get(address, path)
        assert response.status == 200
        assert response.headers["Content-Type"] == f"{kind}; charset=utf-8"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        texts.append(response.read().decode())
    assert not re.search(r"//\w|innerHTML", "".join(texts))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/?x", 200),
        ("HEAD", "/", 200),
        ("GET", "/chat.py", 404),
        ("GET", "/../README.md", 404),
        ("POST", "/", 405),
    ],
)
def test_there_is_nothing_but_the_page(address: tuple[str, int], method: str, path: str, status: int) -> None:
    response = get(address, path, method)
    assert (response.status, bool(response.read())) == (status, method != "HEAD")


def test_there_is_nowhere_to_put_a_body(address: tuple[str, int]) -> None:
    client = HTTPConnection(*address, timeout=PATIENCE)
    client.request("POST", "/", b"x", {"Connection": "close"})
    assert client.getresponse().status == 413
    client.close()


def test_a_page_from_elsewhere_cannot_join(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=PATIENCE) as client:
        client.sendall(
            b"GET /chat HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://evil.example\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            % (address[0].encode(), address[1])
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 403 ")
