"""What a Windows CPython is made of on a machine without Windows, and how pip gets the parts that are not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

from launcher import launcher

__all__ = ["ROOT", "Missing", "lay_out"]

ROOT: Final = Path(__file__).resolve().parents[2]
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
VERSION: Final = f"{sys.version_info.major}{sys.version_info.minor}"
LIBRARY: Final = f"python{VERSION}.dll"

BESIDE_THE_PROGRAM: Final = (LIBRARY, "vcruntime140.dll", "vcruntime140_1.dll")
"""The libraries that the program itself needs to start; all others are for extension modules, and go to ``DLLs``."""

LEFT_OUT: Final = ("api-ms-", "ucrtbase", "tcl", "tk8", "_tkinter", "_test", "_ctypes_test", "_wmi")
"""Wine has a C library of its own, and crashes in ``_wmi``, which the standard library can do without."""

NOT_COPIED: Final = shutil.ignore_patterns(
    *("__pycache__", "site-packages", "dist-packages", "lib-dynload", "config-*", "_sysconfigdata*", "*.so"),
    *("test", "tests", "idlelib", "tkinter", "turtledemo"),
)

OPENING: Final = "        _socket.socket.__init__(self, family, type, proto, fileno)\n"
"""Where the module socket opens one."""

APART: Final = """

import _thread, select, time

def _apart(ask):
    def select(rlist, wlist, xlist, timeout=None):
        sets = list(rlist), list(wlist), list(xlist)
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            with _opening:
                found = ask(*sets, 0)
            left = end - time.monotonic()
            if any(found) or left <= 0:
                return found
            time.sleep(min(left, 0.002))
    return select

_opening = _thread.RLock()
select.select = _apart(select.select)
"""
"""What is put behind it, so that no ``select`` begins while a socket is being opened, on which Wine 8's server ends.

That is so if it names the number which the new socket gets: that of one closed a moment ago. Windows says ENOTSOCK.
"""


class Missing(Exception):
    """The machine lacks something. The message says what, and how it is had."""


def lay_out(folder: Path) -> Path:
    """See that *folder* holds a Windows Python of this one's minor version, and give where.

    Raises:
        Missing: pip could not get the parts.
    """
    packages: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["test"]
    recipes = [Path(__file__), Path(__file__).with_name("launcher.py"), REQUIREMENTS]
    ingredients = f"{[recipe.read_text() for recipe in recipes]} {packages} {sys.version}"
    home = folder / f"python{VERSION}-{sha256(ingredients.encode()).hexdigest()[:8]}"
    if home.exists():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        made = Path(name) / home.name
        pip("download", "--dest", name, "--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS))
        unpack(next(Path(name).glob("*.whl")), made)
        pip("install", "--target", str(made / "Lib" / "site-packages"), "--no-compile", *packages)
        shutil.copytree(sysconfig.get_path("stdlib"), made / "Lib", ignore=NOT_COPIED, dirs_exist_ok=True)
        program = launcher(LIBRARY)
        (made / "python.exe").write_bytes(program)
        # What the venv module copies into an environment that it makes; which of the names depends on its version.
        templates = made / "Lib" / "venv" / "scripts" / "nt"
        templates.mkdir(parents=True, exist_ok=True)
        for template in "python.exe", "venvlauncher.exe":
            (templates / template).write_bytes(program)
        # Wine 8 has no CopyFile2, and ends a program that calls it. Without, shutil copies by itself.
        module = made / "Lib" / "shutil.py"
        module.write_text(module.read_text("utf-8").replace('hasattr(_winapi, "CopyFile2")', "False"), "utf-8")
        module = made / "Lib" / "socket.py"
        before, opening, after = module.read_text("utf-8").partition(OPENING)
        if not opening:
            sys.exit("winpython: the module socket of this Python opens sockets otherwise than was expected")
        module.write_text(f"{before}        with _opening:\n    {opening}{after}{APART}", "utf-8")
        # What is frozen into the libraries calls this as the class method that it is in later patch releases.
        module = made / "Lib" / "importlib" / "metadata" / "__init__.py"
        method = "    def invalidate_caches(cls)"
        text = module.read_text("utf-8").replace(f"    @classmethod\n{method}", method)
        module.write_text(text.replace(method, f"    @classmethod\n{method}"), "utf-8")
        try:
            made.rename(home)  # all or nothing
        except OSError:
            if not home.exists():  # or another run was faster
                raise
    return home


def pip(command: str, *arguments: str) -> None:
    """Have this Python's pip do something for the other one."""
    options = ["--quiet", "--disable-pip-version-check"]
    there = ["--only-binary=:all:", "--platform=win_amd64", f"--python-version={VERSION}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *there, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if "DO NOT MATCH THE HASHES" in done.stdout:
        sys.exit(f"winpython: not what it should be:\n{done.stdout}")
    if done.returncode != 0:
        raise Missing(f"pip could not {command} what is needed: no network?\n{done.stdout.strip()}")


def unpack(wheel: Path, home: Path) -> None:
    """Take CPython's libraries out of the wheel."""
    (home / "DLLs").mkdir(parents=True)
    with ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, _, name = member.rpartition("/")
            if folder == "deploy_libs" and not name.lower().startswith(LEFT_OUT) and f"cp{VERSION}t-" not in name:
                place = home if name.lower() in BESIDE_THE_PROGRAM else home / "DLLs"
                (place / name).write_bytes(archive.read(member))
