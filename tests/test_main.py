"""``python -m polling``: one screen that says what there is and why."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_every_capability_has_words() -> None:
    assert set(MEANINGS) == set(polling.Capability)
