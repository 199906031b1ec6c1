"""REG: what registering, changing and removing do to a source, and what they refuse."""

from __future__ import annotations

from polling import AlreadyRegisteredError, Interest, Poll
from polling_conformance.harness import Ends, Harness, send

__all__ = ["RegistrationRules"]


class RegistrationRules(Harness):
    """Registrations are made, replaced and removed as a whole, errors are the same everywhere and change nothing.

    Most of these rules want several facts about one number: who owns it, whether it was closed meanwhile, and
    what the kernel still believes. They use plain sources, so that nothing of the library's helps.
    """

    def test_REG_01_a_second_registration_is_refused_and_the_first_stays(self, poll: Poll[object], pair: Ends) -> None:
        reader, writer = pair
        poll.register(reader, "first", Interest.READABLE)
        self.expect_error(AlreadyRegisteredError, poll.register, reader, "second", Interest.WRITABLE)
        self.expect_silence(poll)
        send(writer, b"x")
        self.expect_events(poll, {"first": "r"})
