"""A trial: tests of the kit on one backend, in a process of its own.

Whatever a mutant leaves behind, or hangs in, ends with its process. Some hundred trials are held, so most begin as a
fork of one process that has everything in memory, the kit included, and in which waits are short. The kit reads at
its import how long to wait, so a trial that asks for other waits starts an interpreter instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection
from functools import cache
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import pytest

__all__ = ["SHORT", "Said", "address_of", "hold"]

_FORKING: Final = multiprocessing.get_context("forkserver")
_STARTING: Final = multiprocessing.get_context("spawn")

SHORT: Final = 0.1
"""The scale that costs no import: a wait for what never comes takes a second."""


class Said(NamedTuple):
    """What a test said of the backend."""

    test: str
    problem: str | None
    """Why it failed, as pytest tells it."""


def address_of(backend: type) -> str:
    """Name a class by its module."""
    return f"{backend.__module__}:{backend.__qualname__}"


@cache
def _open_nursery() -> None:
    """Start the process from which the others are forked; there is one in all."""
    forkserver.set_forkserver_preload(["mutants.nursery"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _environment(SHORT).items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join(path or os.curdir for path in sys.path))
        forkserver.ensure_running()


def _environment(scale: float) -> dict[str, str]:
    return {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "POLLING_TIME_SCALE": str(scale), "POLLING_THOROUGH": "0"}


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
        scale: By what the kit's two durations are multiplied; ``SHORT`` is the quick one.
        limit: Seconds after which the process is killed, and that is an error.
    """
    if sys.platform == "win32":
        raise NotImplementedError("the mutants derive from backends that Windows does not have")
    if scale == SHORT:
        _open_nursery()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    begin = _FORKING.Process if scale == SHORT else _STARTING.Process
    process = begin(target=_run, args=(sender, backend, folder, rules, tests, scale))
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
    os.environ |= _environment(scale)
    os.chdir(folder)
    sender.send(import_module("mutants.suite").run(backend, rules, tests))
    while True:  # until it is killed: while it lives, its number is nobody else's
        signal.pause()
