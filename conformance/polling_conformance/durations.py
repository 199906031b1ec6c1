"""How long tests wait, for everything: two durations, which a slow machine stretches by an environment variable."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["SIGNAL_WAIT", "SILENCE", "THOROUGH", "TIME_SCALE", "time_scale"]


def time_scale() -> float:
    """Give what the environment variable ``POLLING_TIME_SCALE`` says; 1 where it says nothing.

    Raises:
        ValueError: It is no such number. The message is for whoever has set it.
    """
    said = os.environ.get("POLLING_TIME_SCALE") or "1"
    try:
        scale = float(said)
    except ValueError:
        scale = 0.0
    if not 0.01 <= scale <= 1000:  # NaN is not, either
        raise ValueError(f"POLLING_TIME_SCALE must be a number from 0.01 to 1000, such as 4, and is {said!r}")
    return scale


try:
    TIME_SCALE: Final = time_scale()
    """By what the two durations are multiplied. It is said in every report, unless it is 1."""
except ValueError:
    TIME_SCALE = 1.0  # type: ignore[misc]  # an import is no place to say so: the command does, and each suite class

SIGNAL_WAIT: Final = 10.0 * TIME_SCALE
"""Seconds to wait for something that must come. Generous: only a failing rule ever spends them."""

SILENCE: Final = 0.05 * TIME_SCALE
"""Seconds to watch that nothing comes. Short: every rule about silence spends them, a failing one does not."""

THOROUGH: Final = os.environ.get("POLLING_THOROUGH", "") not in ("", "0")
"""Whether a test that searches is to search long: set by ``polling-conformance --thorough``."""
