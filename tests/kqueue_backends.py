"""The kqueue backend on the model of its kernel, so that it is put to the test where there is no kqueue."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar
from unittest.mock import patch

from polling_backends import _doorbell
from polling_backends.kqueue import KqueueBackend

if TYPE_CHECKING:
    from tests.kqueue_kernel import Flavour, SimulatedKqueue
else:
    from kqueue_kernel import Flavour, SimulatedKqueue

__all__ = ["OnFreeBSD", "OnMacOS", "WithoutUserEvents"]


class OnFreeBSD(KqueueBackend):
    """On the model of FreeBSD's kernel."""

    flavour: ClassVar = Flavour.FREEBSD
    has_user_events: ClassVar = True

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None if sys.platform == "linux" else "the model of kqueue's kernel runs on Linux"

    def __init__(self) -> None:
        super().__init__()
        # What a kqueue needs no descriptor for.
        self._internal = (*self._internal, *self._model.private)

    def _open_kernel(self) -> SimulatedKqueue:
        self._model = SimulatedKqueue(self.flavour, user_events=self.has_user_events)
        return self._model


class OnMacOS(OnFreeBSD):
    """On the model of macOS's kernel."""

    flavour = Flavour.MACOS


class WithoutUserEvents(OnFreeBSD):
    """On the model of a kernel without EVFILT_USER, so that the bell is a doorbell, and a pipe as it is there."""

    has_user_events = False

    def __init__(self) -> None:
        with patch.object(_doorbell, "sys", SimpleNamespace(platform="openbsd7")):
            super().__init__()
