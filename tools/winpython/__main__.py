"""A Windows CPython on a Linux machine: ``python tools/winpython ARGS...`` is to Wine what ``python ARGS...`` is here.

It is the twin of the Python that runs this: the same minor version, the same standard library. It has what the tests
need, and imports the project from this checkout; what PYTHONPATH names comes before. The first run lays it out;
README.md says where, from what, and what Wine is known to do otherwise than Windows.

Environment: ``POLLING_WINE=optional`` makes a run that lacks Wine or the network end with status 0, after saying so
loudly; otherwise the status is 1. ``POLLING_WINPYTHON`` names another folder for what is laid out.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from runtime import ROOT, Missing, lay_out


def main() -> int:
    """Run the twin with this process's arguments, and give its exit status."""
    try:
        wine = find_wine()
        folder = Path(os.environ.get("POLLING_WINPYTHON") or "~/.cache/polling-io/winpython").expanduser().absolute()
        home = lay_out(folder)
    except Missing as missing:
        if os.environ.get("POLLING_WINE") != "optional":
            sys.exit(f"winpython: {missing}")
        line = "=" * 100
        print(f"{line}\nSKIPPED: nothing was tried on Windows: {missing}\n{line}", file=sys.stderr, flush=True)
        return 0
    return run(wine, home, environment(folder, home), sys.argv[1:])


def find_wine() -> str:
    """Give the path of the program that runs a 64-bit one of Windows."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        raise Missing(f"this takes Linux on x86-64, and here is {sys.platform} on {platform.machine()}")
    # Debian has the first of these outside of PATH, and under the second a script that asks for a 32-bit Wine.
    where = os.pathsep.join([os.environ.get("PATH", ""), "/usr/lib/wine", "/usr/lib64/wine"])
    wine = shutil.which("wine64", path=where) or shutil.which("wine", path=where)
    if wine is None:
        raise Missing("there is no 64-bit Wine; on Debian and Ubuntu: apt install wine64")
    return wine


def environment(folder: Path, home: Path) -> dict[str, str]:
    """Give the environment in which the twin runs."""
    roots = [str(ROOT / name) for name in ("polling", "backends", "conformance")]
    path = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *roots]
    ours = {
        "PYTHONPATH": ";".join(f"Z:{Path(entry).absolute()}" for entry in path if entry),
        "WINEPATH": f"Z:{home}",  # where a copy of the program, in a virtual environment, finds the libraries
        "WINEPREFIX": str(folder / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",  # or Wine offers to download what .NET and browsers need
        "LC_ALL": "C.UTF-8",
    }
    patience = {"POLLING_TIME_SCALE": "2"}  # Wine is a slow machine: what waits for thousands of calls needs longer
    return patience | {name: value for name, value in os.environ.items() if name != "DISPLAY"} | ours


def run(wine: str, home: Path, variables: Mapping[str, str], arguments: list[str]) -> int:
    """Run the twin, with an empty standard input, and end with it what it started."""
    if sys.platform == "win32":
        raise NotImplementedError("find_wine has refused")
    # Wine's services start with the first program and inherit its standard streams, so that one gets none.
    first = [wine, "reg", "add", r"HKEY_CURRENT_USER\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    nothing = subprocess.DEVNULL
    subprocess.run(first, env=variables, stdin=nothing, stdout=nothing, stderr=nothing, check=True)
    signal.signal(signal.SIGTERM, _end)
    # CPython takes a standard stream that Wine made of a file or a terminal for a broken one. Of a pipe it does not.
    pipe = subprocess.PIPE
    command = [wine, str(home / "python.exe"), *arguments]
    with subprocess.Popen(
        command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
    ) as twin:
        assert twin.stdin is not None
        assert twin.stdout is not None
        assert twin.stderr is not None
        try:
            twin.stdin.close()
            copiers = [
                threading.Thread(target=_copy, args=(twin.stdout, sys.stdout.fileno()), daemon=True),
                threading.Thread(target=_copy, args=(twin.stderr, sys.stderr.fileno()), daemon=True),
            ]
            for copier in copiers:
                copier.start()
            status = twin.wait()
            for copier in copiers:
                copier.join(5)  # processes that it left behind may keep the pipes open
            return status
        finally:
            with suppress(ProcessLookupError):
                os.killpg(twin.pid, signal.SIGKILL)


def _copy(source: IO[bytes], target: int) -> None:
    while data := source.read(65_536):
        while data:
            data = data[os.write(target, data) :]


def _end(signum: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
