"""Wrong in receiving signals: SIG-05, SIG-07 to SIG-10."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType

from polling import Signals
from polling.signals import _open


class NumbersAreRead(Signals):
    """What has arrived is what the wake-up descriptor says, which drops some when it is full."""

    breaks = ("SIG-05",)

    def receive(self) -> list[signal.Signals]:
        numbers: list[int] = []
        try:
            while chunk := self._near.recv(4096):
                numbers += chunk
        except BlockingIOError:
            pass
        super().receive()
        return [self._members[number] for number in dict.fromkeys(numbers) if number in self._members]


class EachDeliveryCounts(Signals):
    """A signal is received as often as it came."""

    breaks = ("SIG-05",)

    def __init__(self, signals: Iterable[int]) -> None:
        self._all: list[signal.Signals] = []
        super().__init__(signals)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._all.append(self._members[number])
        super()._note(number, frame)

    def receive(self) -> list[signal.Signals]:
        super().receive()
        taken, self._all = self._all, []
        return taken


class DefaultIsPutBack(Signals):
    """The close sets the default handlers, whatever was there before."""

    breaks = ("SIG-07",)

    def close(self) -> None:
        self._before = dict.fromkeys(self._before, signal.SIG_DFL)
        super().close()


class WakeupIsTakenAway(Signals):
    """The close leaves no wake-up descriptor."""

    breaks = ("SIG-07", "SIG-10")

    def close(self) -> None:
        super().close()
        signal.set_wakeup_fd(-1)


class LastOwnerWins(Signals):
    """A signal that another receives is taken over."""

    breaks = ("SIG-08",)

    def __init__(self, signals: Iterable[int]) -> None:
        others = [*_open]
        _open.clear()
        super().__init__(signals)
        _open[:0] = others


class HandlersAlone(Signals):
    """There is no wake-up descriptor: handlers ring, once the main thread comes to run them."""

    breaks = ("SIG-09",)

    def __init__(self, signals: Iterable[int]) -> None:
        super().__init__(signals)
        signal.set_wakeup_fd(-1)


class LastHasTheWakeup(Signals):
    """Of several the one that was opened last is woken, and the others by their handlers."""

    breaks = ("SIG-09",)

    def __init__(self, signals: Iterable[int]) -> None:
        super().__init__(signals)
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)


class ReceivedCrossesACall(Signals):
    """What was received is forgotten when a signal handler raises."""

    breaks = ("SIG-10",)

    def receive(self) -> list[signal.Signals]:
        try:
            return super().receive()
        except BaseException:
            self._arrived.clear()
            raise
