"""A clock on one thread that waits for time and for Ctrl-C by the same wait.

python examples/ticker.py --every 0.5
"""

from __future__ import annotations

import argparse
import signal
from typing import Literal

from serving import usable

from polling import Poll, Signals, Timer


def main() -> None:
    """Print a line for each tick until SIGINT."""
    parser = argparse.ArgumentParser(description="Tick until Ctrl-C.")
    parser.add_argument("--every", type=float, default=1.0, help="seconds (default: %(default)s)")
    parser.add_argument("--backend", type=usable, help="the poll's backend (default: the best one here)")
    arguments = parser.parse_args()
    if not 0 < arguments.every < 1e9:
        parser.error("--every takes more than 0 seconds, and less than some decades")
    with Poll[Literal["timer", "signals"]](arguments.backend) as poll, Signals([signal.SIGINT]) as signals:
        timer = Timer[str]()
        poll.register(timer, "timer")
        poll.register(signals, "signals")
        timer.set_timeout(0, "tick", every=arguments.every)
        ticks = 0
        while True:
            for event in poll.poll():
                if event.token == "timer":
                    for state in timer.expired():
                        ticks += 1
                        print(state, ticks, flush=True)
                elif signals.receive():
                    print(f"{ticks} ticks, and that is it", flush=True)
                    return


if __name__ == "__main__":
    main()
