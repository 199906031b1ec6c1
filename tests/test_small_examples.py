"""The small examples do what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polling import available_backends

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_hello_comes_through_the_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "hello_pipe.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("pipe: hello\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send SIGINT to one process")
@pytest.mark.parametrize("backend", available_backends())
def test_the_ticker_ticks_and_quits_on_sigint(backend: str) -> None:
    program = [sys.executable, "-W", "error", str(EXAMPLES / "ticker.py"), "--every", "0.01", "--backend", backend]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ticker:
        assert ticker.stdout is not None
        assert ticker.stderr is not None
        try:
            assert [ticker.stdout.readline() for _ in range(3)] == ["tick 1\n", "tick 2\n", "tick 3\n"]
            ticker.send_signal(signal.SIGINT)
            assert ticker.wait(60) == 0
        finally:
            ticker.kill()
        *_, last = ticker.stdout.read().splitlines()
        assert last.endswith(" ticks, and that is it")
        assert ticker.stderr.read() == ""
