"""The flags that epoll and poll(2) share, and what they say of a source.

The kernel answers both calls from one function, so the numbers agree and so does their meaning; of
eighteen situations probed on Linux there was none in which they differed. They are literals and not taken from
``select``, so that translation runs and is checked on machines that have neither call; a test compares them.

What the flags mean, as far as it is not obvious:

  HUP    comes unasked. A TCP socket that was never connected has it (with OUT), a pipe's reader whose writers are
         gone has it without IN even though a read would return. So by itself it proves nothing, but a call
         in any direction has something to say.
  ERR    comes unasked, and without OUT for a full pipe whose reader is gone.
  RDHUP  comes if asked: the peer sends nothing more. Asked together with IN only, because a source that is
         watched for writing alone would otherwise report a half-close for ever, with nothing it could set.
  PRI    is out-of-band data, and is not covered by IN.

A half-close affects reading, and says nothing of writing: a full send buffer stays full.
"""

from __future__ import annotations

from polling import Interest, Readiness

TYPE_CHECKING = False  # the module typing takes longer to import than all this

if TYPE_CHECKING:
    from typing import Final

IN: Final = 0x001
PRI: Final = 0x002
OUT: Final = 0x004
ERR: Final = 0x008
HUP: Final = 0x010
NVAL: Final = 0x020  # poll(2) only
RDHUP: Final = 0x2000  # Linux only; elsewhere the hint is missing

READABLE, WRITABLE, PRIORITY = map(int, (Interest.READABLE, Interest.WRITABLE, Interest.PRIORITY))

WATCHED: Final = tuple(
    (IN | RDHUP if asked & READABLE else 0) | (OUT if asked & WRITABLE else 0) | (PRI if asked & PRIORITY else 0)
    for asked in range(8)
)
"""The flags to ask for, by interest."""


def readiness(flags: int, interest: Interest) -> Readiness:
    """Say what *flags* mean to somebody who asked for *interest*."""
    asked = int(interest)  # whose operators are quick
    gone = flags & (ERR | HUP)
    return Readiness(
        readable=bool(asked & READABLE and (gone or flags & (IN | RDHUP))),
        writable=bool(asked & WRITABLE and (gone or flags & OUT)),
        priority=bool(asked & PRIORITY and (gone or flags & (PRI | RDHUP))),
        error=bool(flags & ERR),
        read_closed=bool(flags & RDHUP),
        write_closed=flags & (HUP | RDHUP) == HUP | RDHUP,
    )
