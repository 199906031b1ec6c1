"""``run.py`` and ``tools/winpython`` say what they cannot do; the check of the wheel finds what is wrong with one."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
INFO = "polling_io-0.1.0.dist-info"


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run *program*, which runs run.py after it changed something, where nothing can be set up by mistake."""
    command = [sys.executable, "-c", f"import runpy, sys; {program}; runpy.run_path('run.py', run_name='__main__')"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)


def test_run_refuses_an_unknown_command_before_it_does_anything() -> None:
    ended = run("sys.argv[1:] = ['tset']")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "what is 'tset'?" in ended.stderr
    assert "python3 run.py test" in ended.stderr


def test_run_tells_an_old_python_what_is_needed() -> None:
    ended = run("sys.version_info = (3, 10, 13, 'final', 0)")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"run.py: needs Python 3.11 or newer, and {sys.executable} is 3.10: try python3.13 run.py\n"


def test_run_parses_on_the_old_pythons_that_it_talks_to() -> None:
    ast.parse((CHECKOUT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_run_says_what_to_install_where_no_pip_is_to_be_had() -> None:
    module = runpy.run_path(str(CHECKOUT / "run.py"))
    tried: list[tuple[str, ...]] = []
    find = module["pip"]
    find.__globals__["runs"] = lambda *command: tried.append(command)  # none of them succeeds
    with pytest.raises(SystemExit, match="apt install python3-pip"):
        find()
    own = module["PYTHON"]
    assert tried == [
        (own, "-m", "pip", "--version"),
        (own, "-m", "ensurepip"),
        (sys.executable, "-m", "pip", "--python", own, "--version"),
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, []),
        ({"polling/poll.py": None}, ["missing: polling/poll.py"]),
        ({"tests/test_tools.py": ""}, ["does not belong: tests/test_tools.py"]),
        ({f"{INFO}/licenses/LICENSE": None}, [f"no licence in {INFO}/"]),
        ({f"{INFO}/METADATA": "Requires-Dist: six\n\n"}, ["runtime dependency: Requires-Dist: six"]),
        (
            {"polling_backends/py.typed": None},
            ["missing: polling_backends/py.typed", "untyped: no polling_backends/py.typed"],
        ),
    ],
)
def test_the_check_of_the_wheel_finds(wrong: dict[str, str | None], said: list[str], tmp_path: Path) -> None:
    module = runpy.run_path(str(CHECKOUT / "tools" / "check_wheel.py"))
    metadata = "Requires-Dist: pytest>=8; extra == 'conformance'\n\nRequires-Dist: not a header"
    files = dict.fromkeys(module["expected"](), "") | {f"{INFO}/METADATA": metadata, f"{INFO}/licenses/LICENSE": ""}
    wheel = tmp_path / "polling_io-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in (files | wrong).items():
            if content is not None:
                archive.writestr(name, content)
    assert module["faults"](wheel) == said


@pytest.mark.parametrize(("wine", "status"), [("optional", 0), ("required", 1)])
def test_a_windows_python_that_cannot_be_had_is_no_silent_success(tmp_path: Path, wine: str, status: int) -> None:
    without_network = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    ended = subprocess.run(
        [sys.executable, "tools/winpython", "-c", "print('Windows')"],
        cwd=CHECKOUT,
        env=os.environ | without_network | {"POLLING_WINE": wine, "POLLING_WINPYTHON": str(tmp_path / "winpython")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    assert re.search("no network|no 64-bit Wine|takes Linux", ended.stderr)
    assert ("SKIPPED: nothing was tried on Windows" in ended.stderr) == (status == 0)
