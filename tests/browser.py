"""The chat in a real browser: ``tox -e browser``. Not among the tests that run by default, for it takes a Chromium.

``POLLING_CHROMIUM`` names one, if it is not called chromium. Without one this fails.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import drive
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import polling

CHAT = Path(__file__).parents[1] / "examples" / "chat.py"
PATIENCE = 30_000  # milliseconds to wait for what must come
NASTY = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script> & 'so on'"
SCHEMES: Sequence[tuple[Literal["light", "dark"], bool]] = (("light", True), ("dark", False))


@pytest.fixture(params=sorted(polling.available_backends()))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("POLLING_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail(
            "there is no Chromium to test with; on Debian: apt install chromium. Or let POLLING_CHROMIUM name one"
        )
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Root, which CI may be, gets no sandbox; and all pages are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def pages(browser: Browser) -> Iterator[list[Page]]:
    """Two tabs, in which nothing goes wrong unseen."""
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    context.set_default_timeout(PATIENCE)
    context.set_default_navigation_timeout(PATIENCE)
    mistakes: list[str] = []
    context.on("weberror", lambda error: mistakes.append(str(error.error)))
    yield [context.new_page(), context.new_page()]
    context.close()
    assert mistakes == []


def serve(backend: str = "", port: int = 0) -> drive.Server:
    chosen = ["--backend", backend] if backend else []
    return drive.Server("-W", "error", CHAT, *chosen, "--port", str(port))


def join(page: Page, address: tuple[str, int], name: str) -> None:
    page.goto(f"http://{address[0]}:{address[1]}/")
    field = page.get_by_role("textbox", name="Your name")
    expect(field).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Your message")).to_be_focused()


def say(page: Page, text: str) -> None:
    """Type, as somebody does who has no mouse."""
    page.get_by_role("textbox", name="Your message").focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def expect_said(page: Page, *texts: str) -> None:
    expect(page.get_by_role("log").locator("li.said span")).to_have_text(list(texts), use_inner_text=False)


def test_two_tabs_talk_and_a_reload_and_a_restart_lose_nobody(backend: str, pages: list[Page]) -> None:
    ann, bob = pages
    with serve(backend) as server:
        address = server.address
        join(ann, address, "Ann")
        join(bob, address, "Bob")
        expect(ann.get_by_role("listitem").filter(has_text="Bob has come.")).to_be_visible()
        say(ann, "Hello, Bob")
        expect_said(bob, "Hello, Bob")
        say(bob, NASTY)
        for page in pages:
            expect_said(page, "Hello, Bob", NASTY)
            expect(page).to_have_title("Chat")

        bob.reload()
        expect(bob.get_by_role("status")).to_have_text("Connected as Bob.")
        expect_said(bob, "Hello, Bob", NASTY)
        for page in pages:
            expect(page.get_by_role("list", name="People").get_by_role("listitem")).to_have_text(["Ann", "Bob"])
        say(bob, "Back again")
        expect_said(ann, "Hello, Bob", NASTY, "Back again")

    for page in pages:
        expect(page.get_by_role("status")).to_have_text(re.compile("The connection is lost"))
    say(ann, "Is anybody there?")
    expect(ann.get_by_role("alert")).to_contain_text("no connection")

    with serve(backend, address[1]):
        for page in pages:
            expect(page.get_by_role("status")).to_have_text(re.compile("Connected as (Ann|Bob)."))
        ann.keyboard.press("Enter")  # the message is still in its field
        for page in pages:
            expect_said(page, "Hello, Bob", NASTY, "Back again", "Is anybody there?")
        expect(ann.get_by_role("alert")).to_have_count(0)


def test_a_name_that_is_taken_and_who_leaves(pages: list[Page]) -> None:
    ann, other = pages
    with serve() as server:
        join(ann, server.address, "Ann")
        other.goto(ann.url)
        other.keyboard.type("ann")
        other.keyboard.press("Enter")
        expect(other.get_by_role("alert")).to_have_text("There is somebody called ann already.")
        expect(other.get_by_role("textbox", name="Your name")).to_be_focused()
        ann.get_by_role("button", name="Leave").press("Enter")
        expect(ann.get_by_role("status")).to_have_text("Not connected.")
        other.keyboard.press("Enter")
        expect(other.get_by_role("status")).to_have_text("Connected as ann.")


def test_everything_is_reached_by_keyboard(pages: list[Page]) -> None:
    page = pages[0]
    with serve() as server:
        join(page, server.address, "Ann")
        names = ["Your message", "Send", "Leave"]
        for name in names:
            assert page.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent") == name
            page.keyboard.press("Tab")
        page.get_by_role("textbox", name="Your message").focus()
        page.keyboard.press("Shift+Tab")
        expect(page.get_by_role("log", name="Messages")).to_be_focused()  # so that it can be scrolled


@pytest.mark.parametrize("width", [320, 1200])
def test_the_page_is_light_or_dark_and_fits_the_window(pages: list[Page], width: int) -> None:
    page = pages[0]
    page.set_viewport_size({"width": width, "height": 640})
    with serve() as server:
        join(page, server.address, "A" * 24)
        say(page, "x" * 400)
        expect_said(page, "x" * 400)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        expect(page.get_by_role("button", name="Leave")).to_be_in_viewport()
        people, log = (page.get_by_role(role).bounding_box() for role in ("list", "log"))
        assert people is not None
        assert log is not None
        assert (people["y"] + people["height"] <= log["y"]) == (width < 720), "above each other, or side by side"
        for scheme, is_light in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            for what, lightness in (("backgroundColor", is_light), ("color", not is_light)):
                colour = page.evaluate(f"getComputedStyle(document.body).{what}")
                assert (sum(map(int, re.findall(r"\d+", colour))) > 3 * 128) == lightness, (
                    f"{scheme}: {what} is {colour}"
                )
