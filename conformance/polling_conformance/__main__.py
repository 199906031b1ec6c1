"""The command: ``polling-conformance``, or ``python -m polling_conformance``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from polling import available_backends
from polling_conformance.durations import time_scale
from polling_conformance.report import Matrix, Out, Report, Unwritable, listing
from polling_conformance.rules import RULES
from polling_conformance.runner import Tell, check
from polling_conformance.suite import BackendConformance
from polling_conformance.worker import SMOKE, Refusal, tested_rows

__all__ = ["main"]

T = TypeVar("T")

_DESCRIPTION = """\
Say whether readiness backends keep the contract of polling-io. Each is put through the kit in processes of its
own, all at the same time. The exit status is 0 if all conform, 1 if one does not, 2 if that could not be tried.
"""


def main() -> int:
    """Do what the arguments say, and give the exit status."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except Refusal as refusal:
        problem = str(refusal)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except Unwritable as error:
        problem = str(error)
        if sys.stdout is not None:
            # What is left in its buffer would fail once more, when the interpreter ends.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
    print(f"polling-conformance: {problem}", file=sys.stderr)
    return 2


def _run(arguments: argparse.Namespace) -> int:
    out = Out(sys.stdout)
    # The console script's own folder is first on the path, where `python -m` has the current one.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    tested = tested_rows(BackendConformance)
    if arguments.list:
        out.write(listing(tested))
        return 0
    try:
        time_scale()
    except ValueError as error:
        raise Refusal(str(error)) from error
    known = _known(arguments.known)
    forms: dict[str, Callable[[Report], str]] = {"html": Report.html, "json": Report.json, "junit": Report.junit}
    paths: dict[str, Path] = {form: path for form in forms if (path := getattr(arguments, form)) is not None}
    _see_that_they_differ([*paths.values(), *([arguments.known] if arguments.known else [])])
    for path in paths.values():
        _see_that_it_is_writable(path)
    targets = list(dict.fromkeys(arguments.backend)) or _available()
    if not targets:
        raise Refusal("no backend can run here: `python -m polling` says why")
    shown: list[str] = []

    def begin(targets: Sequence[str], rows: Sequence[str]) -> Tell:
        shown.extend(rows)
        return Matrix(out, targets, rows).tell

    def choose(own: Sequence[str]) -> Sequence[str]:
        return _rows(arguments.rules, [*tested, *own])

    conclusions = asyncio.run(_terminable(check(targets, choose, known, thorough=arguments.thorough, begin=begin)))
    options = ["--known", str(arguments.known)] if arguments.known else []
    report = Report(conclusions, shown, partial=arguments.rules is not None, known=options, thorough=arguments.thorough)
    out.write(report.text())
    for form, path in paths.items():
        try:
            path.write_text(forms[form](report), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise Unwritable(f"{path} cannot be written: {error.strerror}") from error
    return 0 if report.conforms else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polling-conformance", description=_DESCRIPTION)
    parser.add_argument(
        "backend",
        nargs="*",
        metavar="NAME | module:Class",
        help="a backend by its registered name, or the address of a subclass of polling.Backend or of "
        "polling_conformance.BackendConformance; default: every backend that can run here",
    )
    parser.add_argument(
        "--rules",
        metavar="ID,...",
        help="only these: ids such as EDG-05, families such as EDG, or core",
    )
    parser.add_argument(
        "--known", type=Path, metavar="FILE", help='rules expected to fail, TOML: EDG-05 = "reason"; a pass then fails'
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a web page, which needs nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found as data")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit's XML, for CI servers")
    parser.add_argument("--thorough", action="store_true", help="search longer: at most 10 minutes a backend")
    parser.add_argument("--list", action="store_true", help="only list the rules: id, level, status, sentence")
    return parser


def _available() -> list[str]:
    """Name the backends that can run here. Of one that is broken nobody shall think that it was tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return list(available_backends())
        except Exception as error:
            raise Refusal(f"{error}; name the backends that are to be tested") from error


async def _terminable(work: Coroutine[Any, Any, T]) -> T:
    """Await *work*, which SIGINT, SIGTERM and the closing of the terminal cancel: what was started is ended, too.

    SIGINT and SIGTERM do so also where they were ignored, as in a shell's background; SIGHUP does not, for ``nohup``.
    They often come several at a time, and what ends the work is not cut off by the second.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    before = [(number, signal.getsignal(number)) for number in numbers]

    def end(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(task.cancel)

    for number in numbers:
        signal.signal(number, end)
    try:
        return await work
    finally:
        if not task.cancelling():  # else all that is left to do is to end with the right status
            for number, handler in before:
                signal.signal(number, handler)


def _rows(wanted: str | None, tested: Sequence[str]) -> list[str]:
    """Give the rows that ``--rules`` names, in the contract's order; none for all."""
    if wanted is None:
        return []
    known = list(dict.fromkeys([SMOKE, *RULES, *tested]))
    chosen: set[str] = set()
    for word in map(str.strip, wanted.split(",")):
        if word == "core":
            rows = {row for row in known if row in RULES and RULES[row].core}
        else:
            rows = {row for row in known if word in (row, row.partition("-")[0])}
        if not rows:
            raise Refusal(f"--rules: there is no rule {word!r}; --list shows all")
        chosen |= rows
    if not chosen.intersection(tested):
        raise Refusal(f"--rules: none of {wanted} has a test; --list says why")
    return [row for row in known if row in chosen]


def _known(path: Path | None) -> dict[str, str]:
    """Read ``--known``."""
    if path is None:
        return {}
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"--known: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise Refusal(f"--known: {path} is not TOML: {error}") from error
    for row, reason in entries.items():
        rule = RULES.get(row)
        if rule is None:
            raise Refusal(f"--known: {path}: there is no rule {row!r}; --list shows all")
        if rule.planned or rule.declined or rule.untested:
            raise Refusal(f"--known: {path}: {row} has no test that could fail; --list says why")
        if not isinstance(reason, str) or not reason.strip():
            raise Refusal(f"--known: {path}: {row} must have a reason, in quotes")
    return entries


def _see_that_they_differ(paths: Sequence[Path]) -> None:
    """No report shall take the place of another, nor of the list of known failures."""
    for path, others in Counter(path.resolve() for path in paths).items():
        if others > 1:
            raise Refusal(f"{path} is named for {others} things at once")


def _see_that_it_is_writable(path: Path) -> None:
    """Try it before anything is run, and leave nothing behind if it comes to that."""
    was_there = path.exists()
    if was_there and not (path.is_file() or path.is_dir()):
        return  # a device or a pipe, to which opening would matter
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        raise Refusal(f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
