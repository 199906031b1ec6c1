"""Sockets and pipes apart from any poll."""

from __future__ import annotations

import os
import sys

import pytest

from polling.net import pipe

if sys.platform == "win32":
    pytest.skip("this system has no pipes that can be watched", allow_module_level=True)


def test_a_pipe_dropped_unclosed_is_closed_even_if_the_warning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    reader, writer = pipe()
    with writer:
        fd = reader.fileno()
        del reader
        assert unraisable == [ResourceWarning]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
