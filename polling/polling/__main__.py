"""``python -m polling``: which backends this machine has, which one ``Poll()`` takes and why, and what each can do.

``--markdown`` prints the table of capabilities alone, as the README has it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version

from polling._loader import BUILT_IN, VARIABLE, backend_names, default_backend, load_backend
from polling.backend import Backend, Capability
from polling.errors import PollingError

MEANINGS = {
    Capability.NATIVE_EDGE: "edge mode on any descriptor",
    Capability.DUP_CLOSE: "closing while a duplicate lives ends the events",
    Capability.SHARED_SOURCE: "one source in several polls",
    Capability.NESTED: "a poll can be watched by another",
    Capability.PRIORITY: "out-of-band data",
    Capability.SUB_MS: "timeouts below a millisecond",
    Capability.INTERRUPTIBLE: "signal handlers run at once",
    Capability.CHAR_DEVICES: "character devices such as /dev/null",
    Capability.TTY: "terminals",
    Capability.PIPES: "pipes and FIFOs",
    Capability.READ_CLOSED: "hint read_closed",
    Capability.WRITE_CLOSED: "hint write_closed",
    Capability.ERROR: "hint error",
}


def markdown() -> str:
    """Give the capabilities of our own backends as a table; they do not depend on the machine."""
    backends = [load_backend(name) for name in BUILT_IN]
    lines = [
        "| | " + " | ".join(backend.name for backend in backends) + " |",
        "|---|" + ":-:|" * len(backends),
    ]
    for capability, meaning in MEANINGS.items():
        marks = ("yes" if capability in backend.capabilities else "-" for backend in backends)
        lines.append(f"| {meaning} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def report() -> str:
    """Give the whole page."""
    try:
        release = version("polling-io")
    except PackageNotFoundError:
        release = "(not installed)"
    lines = [
        f"polling-io {release}, {platform.python_implementation()} {platform.python_version()}, {sys.platform}",
        "",
    ]
    lines.append(f"Poll() takes: {_choice()}")
    for name in backend_names():
        lines.append("")
        try:
            backend = load_backend(name)
            reason = backend.unavailable_reason()
            abilities = _abilities(backend)
        except Exception as error:  # a stranger's package: whatever it raises is what there is to say
            lines.append(f"{name}: cannot be asked: {error!r}")
            continue
        lines.append(f"{name}: {'available' if reason is None else f'not here: {reason}'}")
        lines.extend(abilities)
    return "\n".join(lines) + "\n"


def _choice() -> str:
    wanted = os.environ.get(VARIABLE)
    why = f"as the environment variable {VARIABLE} says"
    try:
        if not wanted:
            return f"{default_backend().name}, the best that runs here"
        reason = load_backend(wanted).unavailable_reason()
    except PollingError as error:
        return f"nothing: {error}"
    except Exception as error:  # as above
        return f"nothing: {wanted}, {why}, cannot be asked: {error!r}"
    return f"{wanted}, {why}" if reason is None else f"nothing: {wanted}, {why}, cannot run here: {reason}"


def _abilities(backend: type[Backend]) -> list[str]:
    can = [meaning for capability, meaning in MEANINGS.items() if capability in backend.capabilities]
    cannot = [meaning for capability, meaning in MEANINGS.items() if capability not in backend.capabilities]
    lines = []
    for word, found in (("can", can), ("cannot", cannot)):
        if found:
            lines += textwrap.wrap(
                ", ".join(found), 100, initial_indent=f"    {word + ':':8}", subsequent_indent=" " * 12
            )
    return lines


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m polling", description="Say which backends this machine has.")
    parser.add_argument("--markdown", action="store_true", help="only the table of capabilities, for the README")
    arguments = parser.parse_args()
    sys.stdout.write(markdown() if arguments.markdown else report())


if __name__ == "__main__":
    main()
