"""``python -m polling``: one screen that says what there is and why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polling
from polling.__main__ import MEANINGS


def page(**environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "polling"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return ran.stdout


def test_it_names_the_default_and_every_backend() -> None:
    said = page(POLLING_BACKEND="")
    best = next(iter(polling.available_backends()))
    assert f"Poll() takes: {best}, the best that runs here" in said
    for name in polling.backend_names():
        assert f"\n{name}: " in said
    assert len(said.splitlines()) <= 40, "more than one screen"


def test_it_says_when_the_variable_chooses() -> None:
    last = list(polling.available_backends())[-1]
    assert f"Poll() takes: {last}, as the environment variable POLLING_BACKEND says" in page(POLLING_BACKEND=last)


def test_it_says_when_the_variable_names_nothing() -> None:
    assert "Poll() takes: nothing: there is no backend 'nix'" in page(POLLING_BACKEND="nix")


def test_a_strangers_broken_backend_is_one_line_of_it(tmp_path: Path) -> None:
    broken = (
        "from polling import Backend\nclass B(Backend):\n    @classmethod\n    def unavailable_reason(cls): 1 / 0\n"
    )
    (tmp_path / "broken_module.py").write_text(broken)
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[polling.backends]\nbroken = broken_module:B\nlost = nowhere:B\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for chosen in "broken", "lost":
        said = page(PYTHONPATH=path, POLLING_BACKEND=chosen)
        assert re.search(rf"Poll\(\) takes: nothing: {chosen}", said)
        assert "\nbroken: cannot be asked: ZeroDivisionError" in said
        assert "\nlost: cannot be asked: ModuleNotFoundError" in said


def test_every_capability_has_words() -> None:
    assert set(MEANINGS) == set(polling.Capability)
