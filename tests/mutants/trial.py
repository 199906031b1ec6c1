"""A trial: tests of the kit on one backend, in a process of its own.

The process is forked from one that has imported pytest and our backends already, so it begins at once; whatever a
mutant leaves behind, or hangs in, ends with it. Only the kit itself is imported in each, since it reads there how
long to wait.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

__all__ = ["Said", "address_of", "hold"]

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["pytest", "hypothesis", "polling.net", "polling_backends.epoll"])


class Said(NamedTuple):
    """What a test said of the backend."""

    test: str
    problem: str | None
    """Why it failed, as pytest tells it."""


def address_of(backend: type) -> str:
    """Name a class by its module."""
    return f"{backend.__module__}:{backend.__qualname__}"


def hold(
    backend: str,
    *,
    folder: Path,
    rules: Collection[str] | None = None,
    tests: str = ".*",
    scale: float,
    limit: float,
) -> list[Said]:
    """Run tests on what has the address *backend*; those of a rule end with the first that fails.

    Args:
        backend: A backend, or a front object that stands on one.
        folder: An empty one, for what the process writes.
        rules: Whose tests are run; by default those of all rules.
        tests: Which of them: a pattern for their names, parameters included.
        scale: By what the kit's two durations are multiplied.
        limit: Seconds after which the process is killed, and that is an error.
    """
    if sys.platform == "win32":
        raise NotImplementedError("the mutants derive from backends that Windows does not have")
    receiver, sender = _FORKING.Pipe(duplex=False)
    process = _FORKING.Process(target=_run, args=(sender, backend, folder, rules, tests, scale))
    process.start()
    sender.close()
    try:
        said: list[Said] | None = receiver.recv() if receiver.poll(limit) else None
    except EOFError:
        said = None
    finally:
        receiver.close()
        if process.is_alive() and process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    assert said is not None, f"died, or took longer than {limit:g} s:\n{(folder / 'log.txt').read_text()}"
    return said


def _run(
    sender: Connection,
    backend: str,
    folder: Path,
    rules: Collection[str] | None,
    tests: str,
    scale: float,
) -> None:
    """Be the process."""
    if sys.platform == "win32":
        raise NotImplementedError
    os.setsid()  # a group of its own, to be killed with all its children
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
    for standard in 1, 2:
        os.dup2(log, standard)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # of the run that this is a part of
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "POLLING_TIME_SCALE": str(scale)}
    os.chdir(folder)
    sender.send(import_module("mutants.suite").run(backend, rules, tests))
    while True:  # until it is killed: while it lives, its number is nobody else's
        signal.pause()
