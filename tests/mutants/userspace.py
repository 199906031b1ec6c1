"""Wrong in what has no descriptor: USR."""

from __future__ import annotations

from typing import ClassVar

from polling import AlreadyRegisteredError, Event, Interest, Mode, PollingError, UserSource

from . import Front


class _Substituting(Front):
    """Registers sources in user space with another mode than it was told."""

    instead: ClassVar[dict[Mode, Mode]]

    def _register_user(self, source: UserSource, token: object, interest: Interest, mode: Mode) -> None:
        super()._register_user(source, token, interest, self.instead.get(mode, mode))

    def _reregister_user(self, source: UserSource, token: object, interest: Interest, mode: Mode) -> None:
        super()._reregister_user(source, token, interest, self.instead.get(mode, mode))


class OnlyWhatComesLaterCounts(Front):
    """What is set when a source in user space is registered is no event: only what is set later."""

    breaks = ("USR-01", "USR-03")

    def _register_user(self, source: UserSource, token: object, interest: Interest, mode: Mode) -> None:
        super()._register_user(source, token, interest, mode)
        self._table.pending.clear()


class UserSpaceHasNoLevel(_Substituting):
    """In user space each call is reported once, level or not."""

    breaks = ("USR-02",)
    instead: ClassVar = {Mode.LEVEL: Mode.EDGE}


class SetsAreQueued(Front):
    """What is set is an event to come, also if it is cleared before the wait."""

    breaks = ("USR-02",)

    def _sort_out(self, events: list[Event[object] | None]) -> list[Event[object] | None]:
        for registration in [*self._table.pending]:
            registration.source._ready |= registration.armed
        return super()._sort_out(events)


class UserSpaceHasNoEdge(_Substituting):
    """In user space edge is level: what is set is reported until it is cleared."""

    breaks = ("USR-03",)
    instead: ClassVar = {Mode.EDGE: Mode.LEVEL}


class UserSpaceHasNoOneshot(_Substituting):
    """In user space a oneshot is an edge, and the next call another."""

    breaks = ("USR-04",)
    instead: ClassVar = {Mode.ONESHOT: Mode.EDGE, Mode.EDGE_ONESHOT: Mode.EDGE}


class UserSpaceReportsAll(Front):
    """Whatever is set of a source in user space is reported, asked for or not."""

    breaks = ("USR-05",)

    def _register_user(self, source: UserSource, token: object, interest: Interest, mode: Mode) -> None:
        super()._register_user(source, token, Interest.READ_WRITE | Interest.PRIORITY, mode)


class UserSpaceIsRegisteredTwice(Front):
    """Registering a source in user space once more replaces its registration."""

    breaks = ("USR-06",)

    def _register_user(self, source: UserSource, token: object, interest: Interest, mode: Mode) -> None:
        try:
            super()._register_user(source, token, interest, mode)
        except AlreadyRegisteredError:
            self._reregister_user(source, token, interest, mode)


class WhatWasTakenUpIsForgotten(Front):
    """What was taken up in user space for a batch is gone with the batch, if a signal handler raises."""

    breaks = ("USR-07",)

    def _resume(self) -> None:
        self._table.woken.clear()
        super()._resume()


class UserSpaceTakesPlaces(Front):
    """Events of user space count in the batch."""

    breaks = ("USR-08", "WAK-07")

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        return super().poll(timeout, max_events)[:max_events]


class UserSpaceComesAlone(Front):
    """While user space has something to say, nobody else is heard."""

    breaks = ("USR-08", "WAK-07")

    def poll(self, timeout: float | None = None, max_events: int = 1024) -> list[Event[object]]:
        events = super().poll(timeout, max_events)
        return [event for event in events if not isinstance(event._key, tuple)] or events


class WatchedForDescriptorsOnly(Front):
    """A poll within a poll is not ready for what stays ready in user space."""

    breaks = ("USR-09",)

    def fileno(self) -> int:
        number = super().fileno()
        self._is_nested = False
        return number


class CloseKeepsUserSpace(Front):
    """The close does not let go of sources in user space."""

    breaks = ("USR-10",)

    def _shut(self, refusal: type[PollingError]) -> None:
        self._table.users.clear()
        super()._shut(refusal)
