"""The rules, one module for each family, and the class that gathers them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from polling_conformance.durations import time_scale
from polling_conformance.failure import rule_of
from polling_conformance.suite.capacity import CapacityRules
from polling_conformance.suite.channels import ChannelRules
from polling_conformance.suite.closing import ClosingRules
from polling_conformance.suite.edge import EdgeRules
from polling_conformance.suite.events import EventRules
from polling_conformance.suite.interest import InterestRules
from polling_conformance.suite.level import LevelRules
from polling_conformance.suite.loops import LoopRules
from polling_conformance.suite.machine import Machines
from polling_conformance.suite.oneshot import OneshotRules
from polling_conformance.suite.ownership import OwnershipRules
from polling_conformance.suite.received import ReceivedSignalRules
from polling_conformance.suite.registration import RegistrationRules
from polling_conformance.suite.signals import SignalRules
from polling_conformance.suite.smoke import Smoke
from polling_conformance.suite.sources import SourceRules
from polling_conformance.suite.threads import ThreadRules
from polling_conformance.suite.timeouts import TimeoutRules
from polling_conformance.suite.timers import TimerRules
from polling_conformance.suite.user import UserRules
from polling_conformance.suite.wakers import WakerRules

__all__ = ["BackendConformance"]


class BackendConformance(
    Smoke,
    RegistrationRules,
    OwnershipRules,
    InterestRules,
    LevelRules,
    EdgeRules,
    OneshotRules,
    EventRules,
    TimeoutRules,
    SignalRules,
    ReceivedSignalRules,
    WakerRules,
    CapacityRules,
    ClosingRules,
    SourceRules,
    TimerRules,
    UserRules,
    ThreadRules,
    Machines,
    ChannelRules,
    LoopRules,
):
    """Every rule a backend must keep, and the machines that look for what no rule's test thought of.

    Subclass it under a name that pytest collects, and set ``backend``.

    Rules that the backend is known to break go into ``known_failures``, each with a reason. They must then
    fail, by one of their tests at least: when none fails, the run fails until the entry is removed.
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        try:
            time_scale()
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        if cls.__init__ is not object.__init__ or cls.__new__ is not object.__new__:
            raise TypeError(f"{cls.__name__} has a constructor, and pytest takes no tests from such a class")
        known = cls.known_failures
        if not isinstance(known, Mapping):
            raise TypeError(f"{cls.__name__}.known_failures must map rules to reasons, and is {known!r}")
        unknown = known.keys() - {rule_of(name) for name in dir(cls)}
        if unknown:
            raise ValueError(f"{cls.__name__}.known_failures names rules without a test: {sorted(unknown, key=str)}")
        for rule, reason in known.items():
            if not isinstance(reason, str) or not reason.strip():
                raise ValueError(f"{cls.__name__}.known_failures gives {reason!r} as the reason for {rule}")
