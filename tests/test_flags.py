"""The translation of the flags that epoll and poll(2) share, over everything the kernel can say."""

from __future__ import annotations

import select
from itertools import combinations

import pytest

from polling import Interest
from polling_backends import _flags
from polling_backends._flags import ERR, HUP, IN, OUT, PRI, RDHUP, WATCHED

NAMES = ["IN", "PRI", "OUT", "ERR", "HUP", "NVAL", "RDHUP"]
UNASKED = ERR | HUP
"""What the kernel reports whatever was asked for. (NVAL is one of poll's, which answers it before it translates.)"""

INTERESTS = [Interest(bits) for bits in range(8)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("facility", ["EPOLL", "POLL"])
def test_the_literals_are_what_the_platform_says(facility: str, name: str) -> None:
    expected = getattr(select, facility + name, None)
    if expected is None:
        pytest.skip(f"this platform has no {facility}{name}")
    assert getattr(_flags, name) == expected


def test_something_was_compared() -> None:
    if hasattr(select, "poll"):
        assert {name for name in NAMES if hasattr(select, f"POLL{name}")} >= {"IN", "PRI", "OUT", "ERR", "HUP", "NVAL"}


PROMISES = {"r": "readable", "w": "writable", "p": "priority"}
HINTS = {"e": "error", "r": "read_closed", "w": "write_closed"}

# Situation: the flags that Linux reports of a source that is watched for everything, what is ready, and the hints.
LINUX = {
    "TCP, idle": (OUT, "w", ""),
    "TCP, data": (IN | OUT, "rw", ""),
    "TCP, urgent data": (PRI | OUT, "wp", ""),
    "peer's SHUT_WR": (IN | OUT | RDHUP, "rw", "r"),
    "peer's SHUT_WR, no room": (IN | RDHUP, "r", "r"),
    "both FIN": (IN | OUT | HUP | RDHUP, "rwp", "rw"),
    "own SHUT_WR": (OUT, "w", ""),
    "own SHUT_RD": (IN | OUT | RDHUP, "rw", "r"),
    "own SHUT_RDWR": (IN | OUT | HUP | RDHUP, "rwp", "rw"),
    "reset": (IN | OUT | ERR | HUP | RDHUP, "rwp", "erw"),
    "reset, after the read raised": (IN | OUT | HUP | RDHUP, "rwp", "rw"),
    "connect refused": (IN | OUT | ERR | HUP | RDHUP, "rwp", "erw"),
    "connect refused, after SO_ERROR": (IN | OUT | HUP | RDHUP, "rwp", "rw"),
    "never connected": (OUT | HUP, "rwp", ""),
    "Unix peer closed": (IN | OUT | HUP | RDHUP, "rwp", "rw"),
    "Unix peer closed, unread": (IN | OUT | ERR | HUP | RDHUP, "rwp", "erw"),
    "Unix peer's SHUT_RD": (OUT, "w", ""),
    "Unix datagram peer closed": (OUT, "w", ""),
    "pipe, writer closed": (HUP, "rwp", ""),
    "pipe, writer closed, data": (IN | HUP, "rwp", ""),
    "pipe, reader closed": (OUT | ERR, "rwp", "e"),
    "full pipe, reader closed": (ERR, "rwp", "e"),
    "FIFO, writer came and left": (HUP, "rwp", ""),
    "pty master, slave closed": (OUT | HUP, "rwp", ""),
    "UDP, port unreachable": (OUT | ERR, "rwp", "e"),
    "listener, connection pending": (IN, "r", ""),
    "listener after shutdown": (HUP, "rwp", ""),
    "edge of reading, both directions asked for": (IN | OUT, "rw", ""),
}


@pytest.mark.parametrize("situation", LINUX)
def test_each_situation_seen_on_linux_is_read_right(situation: str) -> None:
    flags, ready, hints = LINUX[situation]
    for interest in INTERESTS:
        asked = {letter for letter, bit in zip("rwp", (1, 2, 4), strict=True) if interest & bit}
        if "r" in asked:
            # RDHUP comes with reading only. It ends urgent data, too; nobody who asks for that alone is told.
            told, certain = asked & {*ready, *("p" if flags & RDHUP else "")}, set(hints)
        else:
            told, certain = asked & set(ready), set(hints) & {"e"}
        expected = {PROMISES[letter] for letter in told} | {HINTS[letter] for letter in certain}
        readiness = _flags.readiness(flags & (WATCHED[interest] | UNASKED), interest)
        assert {name for name, value in readiness._asdict().items() if value} == expected, repr(interest)


@pytest.mark.parametrize("interest", INTERESTS)
def test_whatever_the_kernel_can_return_says_something_and_nothing_unasked(interest: Interest) -> None:
    possible = [flag for flag in (IN, PRI, OUT, RDHUP, ERR, HUP) if flag & (WATCHED[interest] | UNASKED)]
    pairs = [sum(some) for count in range(1, len(possible) + 1) for some in combinations(possible, count)]
    assert len(pairs) == 2 ** len(possible) - 1
    for flags in pairs:
        readiness = _flags.readiness(flags, interest)
        promised = readiness.readable * Interest.READABLE | readiness.writable * Interest.WRITABLE
        promised |= readiness.priority * Interest.PRIORITY
        assert not promised & ~interest, f"{flags:#x} sets more than {interest!r}: {readiness}"
        assert promised or not interest, f"{flags:#x} says nothing of {interest!r}: {readiness}"
        if flags & UNASKED:
            assert promised == interest, f"{flags:#x} leaves something out of {interest!r}: {readiness}"
        for bit, flag in (Interest.READABLE, IN), (Interest.WRITABLE, OUT), (Interest.PRIORITY, PRI):
            assert not (interest & bit and flags & flag) or promised & bit, f"{flags:#x}, {interest!r}: {readiness}"


@pytest.mark.parametrize("interest", INTERESTS)
def test_flags_that_were_not_asked_for_set_nothing_beside_the_interest(interest: Interest) -> None:
    everything = IN | PRI | OUT | RDHUP | ERR | HUP
    for flags in range(everything + 1):
        if flags & ~everything:
            continue
        readiness = _flags.readiness(flags, interest)
        assert readiness.readable <= (Interest.READABLE in interest), f"{flags:#x}"
        assert readiness.writable <= (Interest.WRITABLE in interest), f"{flags:#x}"
        assert readiness.priority <= (Interest.PRIORITY in interest), f"{flags:#x}"


def test_each_interest_asks_for_its_flags_and_no_others() -> None:
    for interest in INTERESTS:
        asked = {IN | RDHUP: Interest.READABLE, OUT: Interest.WRITABLE, PRI: Interest.PRIORITY}
        assert WATCHED[interest] == sum(flags for flags, bit in asked.items() if bit in interest)
