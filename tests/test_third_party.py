"""A stranger's distribution beside ours: its backend is found by its entry point, works, and passes the kit.

``examples/third_party_backend`` is laid out as an installer would leave it, a package and a ``.dist-info`` made from
its ``pyproject.toml``, in a folder that interpreters of their own have on their path. That takes no network and no
build backend. ``tox -e package`` builds and installs it for real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from polling._loader import BUILT_IN

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "third_party_backend"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the example's wheel would put there."""
    site = tmp_path_factory.mktemp("site")
    described = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    project = described["project"]
    for package in described["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        shutil.copytree(EXAMPLE / package, site / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {address}" for name, address in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site


def run(site: Path, *arguments: str, **variables: str) -> str:
    """Run an interpreter that finds *site*, with the example's own ``backends`` folder below it; give its output."""
    path = os.pathsep.join([str(site), *(entry for entry in sys.path if entry)])
    environment = {key: value for key, value in os.environ.items() if key != "POLLING_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=EXAMPLE,
        env=environment | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_it_is_listed_behind_ours(site: Path) -> None:
    listed = run(site, "-c", "import polling; print(*polling.backend_names())").split()
    without = run(EXAMPLE, "-c", "import polling; print(*polling.backend_names())").split()
    assert "select" not in without
    assert listed == [*without, "select"]


def test_it_runs_by_its_name_and_is_not_the_default(site: Path) -> None:
    script = """
import socket, sys
from polling import Poll, available_backends
with Poll() as poll:
    print(poll.backend.name)
assert "polling_select" not in sys.modules, "a stranger is imported only when it is asked for"
near, far = socket.socketpair()
with near, far, Poll("select") as poll:
    poll.register(near, "near")
    far.send(b"x")
    print(type(poll.backend).__module__, *(event.token for event in poll.poll(10)))
print(list(available_backends())[-1])
"""
    default, used, last = run(site, "-c", script).splitlines()
    assert default in BUILT_IN
    assert used == "polling_select near"
    assert last == "select"


def test_the_environment_may_choose_it(site: Path) -> None:
    script = "import polling\nwith polling.Poll() as poll: print(poll.backend.name)"
    assert run(site, "-c", script, POLLING_BACKEND="select") == "select\n"


def test_its_folder_called_backends_hides_nothing_of_ours(site: Path) -> None:
    script = """
import backends, polling, polling_backends, polling_select
print(list(backends.__path__)[0])
with polling.Poll() as poll:
    print(type(poll.backend).__module__.partition(".")[0])
"""
    folder, package = run(site, "-c", script).splitlines()
    assert Path(folder) == EXAMPLE / "backends"
    assert package == "polling_backends"


SOME_RULES = "smoke or EDG_05 or ONE_01 or WAK_01 or THR_01 or SIG_01"


def test_it_passes_some_of_the_kit(site: Path) -> None:
    output = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SOME_RULES)
    assert " passed" in output


@pytest.mark.slow
def test_it_passes_the_whole_kit_and_tests_of_its_own(site: Path) -> None:
    output = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in output
