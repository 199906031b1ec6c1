"""The command's parent process: workers for each backend, all at the same time, and a verdict for each rule.

A worker that says nothing for too long is killed; the test that it was in has failed, and a fresh worker goes on
after it. So does one that dies. What ``worker`` says on the way is documented there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from polling_conformance.durations import SIGNAL_WAIT
from polling_conformance.rules import RULES
from polling_conformance.worker import SMOKE, Description, Failure, Outcome, Refusal

__all__ = ["Conclusion", "State", "Verdict", "check", "judge"]

_START: Final = 60.0
"""Seconds in which a worker must be ready, and must have collected: imports on a busy machine."""

_SHARES: Final = 3
"""Processes among which a backend's rows are dealt out. The last has what is no rule, and searches; the rules have the
others, since most of their time is spent watching that nothing comes."""

_LOG: Final = 8000
"""Characters of a dead worker's last words that are kept."""


class State(StrEnum):
    """What can become of a rule on a backend."""

    PASS = "pass"
    FAIL = "fail"
    KNOWN = "known failure"
    UNEXPECTED = "unexpected pass"
    NOT_RUN = "not run"
    NOT_APPLICABLE = "not applicable"
    PLANNED = "planned"
    DECLINED = "declined"
    UNTESTED = "untested"

    @property
    def good(self) -> bool:
        """Whether a backend with it can conform."""
        return self not in (State.FAIL, State.UNEXPECTED, State.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a rule (or a layer, such as smoke) on a backend, and why if there is more to say.

    Attributes:
        row: The rule or layer.
        state: What became of it.
        reason: Why, for states other than pass and fail.
        failures: What failed, also where that was expected.
        tests: How many tests it has.
        untried: How many of them were not run, because one before them had failed.
        skipped: How many of them were left out while others were run, by the reason that they gave.
        seconds: How long those that were run took together.
    """

    row: str
    state: State
    reason: str = ""
    failures: Sequence[Failure] = ()
    tests: int = 0
    untried: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0


@dataclass
class Conclusion:
    """One backend's verdicts, by row."""

    target: str
    description: Description
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    seconds: float = 0

    @property
    def conforms(self) -> bool:
        """Whether nothing speaks against it."""
        return all(verdict.state.good for verdict in self.verdicts.values())


def without_test(row: str) -> Verdict | None:
    """Give the verdict on a rule that says itself why it is not tested."""
    rule = RULES.get(row)
    if rule is None:
        return None
    if rule.planned:
        return Verdict(row, State.PLANNED, "It speaks of a part of the library that is not built yet.")
    if rule.declined:
        return Verdict(row, State.DECLINED, rule.declined)
    if rule.untested:
        return Verdict(row, State.UNTESTED, rule.untested)
    return None


def judge(row: str, outcomes: Sequence[Outcome], collected: int, known: str | None, smoke_failed: bool) -> Verdict:
    """Come to a verdict.

    Args:
        row: The rule or layer.
        outcomes: Of those of its tests that were run.
        collected: How many tests it has.
        known: The reason why it is expected to fail.
        smoke_failed: Whether that kept others from being run.
    """
    settled = without_test(row)
    if settled is not None:
        return settled
    if not outcomes and smoke_failed:
        return Verdict(
            row, State.NOT_RUN, f"Nothing is worth trying while {SMOKE} fails.", tests=collected, untried=collected
        )
    if not outcomes and row not in RULES:
        return Verdict(row, State.NOT_APPLICABLE, "Only the test class of another backend has it.")
    if not outcomes:
        return Verdict(row, State.FAIL, failures=[Failure("", "a test of this rule", "none was collected")])
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    skipped = Counter(outcome.skipped for outcome in outcomes if outcome.skipped)
    passed = any(not outcome.failures and not outcome.skipped for outcome in outcomes)
    if failures:
        state, reason = (State.FAIL, "") if known is None else (State.KNOWN, known)
    elif known is not None:
        state, reason = State.UNEXPECTED, f"It is listed as a known failure ({known}), and does not fail."
    elif not passed:
        state, reason, skipped = State.NOT_APPLICABLE, "; ".join(skipped), Counter()
    else:
        state, reason = State.PASS, ""
    untried = max(collected - len(outcomes), 0)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return Verdict(row, state, reason, failures, collected, untried, skipped, seconds)


# -- one worker ------------------------------------------------------------------------------------------


class _Lost(Exception):
    """The worker is gone, or had to be ended. The message says which, and what its last words were."""


class _Worker:
    """A process that tests one backend."""

    def __init__(self, target: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._target = target
        self._folder = folder
        self._environment = environment
        self._process: Process | None = None
        self._status: int | None = None

    async def start(self) -> Description:
        """Start it, and learn what it is to test.

        Raises:
            Refusal: The backend cannot be made.
        """
        self._folder.mkdir(parents=True)
        call = f"from polling_conformance.worker import main; main({self._target!r}, {str(self._folder)!r})"
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-c", call],
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=self._environment,
                limit=1 << 26,  # of one line
                start_new_session=True,  # a group of its own, to be killed with all its children
            )
        try:
            kind, content = await self.receive(_START)
        except _Lost as lost:
            raise Refusal(f"{self._target}: cannot be imported and made into a poll: {lost}") from None
        if kind == "refused":
            raise Refusal(content)
        return Description(**content)

    async def send(self, job: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        with suppress(ConnectionError):  # then it is dead, which receive tells
            await self._process.stdin.drain()

    async def receive(self, limit: float) -> tuple[str, Any]:
        """Give what it says next: a word, and what comes with it.

        Raises:
            _Lost: It said nothing for *limit* seconds, or died.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), limit)
        except TimeoutError:
            await self.end()
            raise _Lost(f"killed after {limit:g} s without a sign of life{self._last_words()}") from None
        if not line.endswith(b"\n"):
            status = await self.end()
            raise _Lost(f"its process died with status {status}{self._last_words()}")
        [(kind, content)] = json.loads(line).items()
        return kind, content

    async def leave(self) -> None:
        """Wait until it has ended, having nothing more to say.

        Raises:
            _Lost: It does not end, or with another status than 0.
        """
        try:
            await self.receive(_START)
        except _Lost:
            if await self.end() != 0:
                raise

    async def end(self) -> int | None:
        """Kill it and all its children, if they are still there, and give its exit status."""
        process, self._process = self._process, None  # its number may be another's later: it is killed once
        if process is None:
            return self._status
        if process.stdin is not None:
            process.stdin.close()
        if process.stdout is not None and process.stdout.at_eof():
            with suppress(TimeoutError):  # it is dying by itself: let it, for its status
                await asyncio.wait_for(process.wait(), 1)
        with suppress(ProcessLookupError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutError):  # a grandchild in a session of its own may hold the pipe
            await asyncio.wait_for(process.wait(), 5)
        self._status = process.returncode
        return self._status

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        # Of a traceback only what is below pytest.
        words = "\n".join(line for line in lines if not re.search(r"[/\\](_pytest|pluggy)[/\\]", line)).strip()
        return f":\n{words[-_LOG:]}" if words else ""

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"


# -- one backend -----------------------------------------------------------------------------------------


class _Run:
    """Some rows of one backend: workers, one after the other, and what they found."""

    def __init__(self, target: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._target = target
        self._folder = folder
        self._environment = environment
        self._workers = 0
        self._ready = False
        self._outcomes: list[Outcome] = []
        self._collected: dict[str, int] = {}

    async def start(self) -> Description:
        """Start a worker. For the errors see ``_Worker.start``."""
        self._workers += 1
        self._worker = _Worker(self._target, self._folder / str(self._workers), self._environment)
        description = await self._worker.start()
        self._ready = True
        return description

    async def end(self) -> None:
        """Leave no worker behind."""
        if self._workers:
            await self._worker.end()

    async def test(self, rows: Sequence[str], known: Mapping[str, str], conclude: Callable[[Verdict], None]) -> None:
        """Run the tests of *rows*, and judge each row once its last test is over.

        A trouble of the process itself, which no row is to blame for, counts against smoke.
        """
        left = list(rows)
        tested = [row for row in rows if without_test(row) is None]

        def judge_row(row: str) -> None:
            outcomes = [outcome for outcome in self._outcomes if outcome.row == row]
            conclude(judge(row, outcomes, self._collected.get(row, 0), known.get(row), SMOKE in self._failed()))

        def judge_until(row: str | None) -> None:
            while left and left[0] != row:
                judge_row(left.pop(0))

        while tested:
            if not self._ready:
                try:
                    await self.start()
                except Refusal as refusal:
                    self._fail(SMOKE, "", "a poll can be made once more, in another process", str(refusal))
                    break
            lost = await self._follow(tested, known, judge_until)
            if lost is None:
                break
            (row, test), observation = lost
            self._fail(row, test, "the test ends", observation)
        judge_until(None)
        if SMOKE in self._failed() and SMOKE not in rows:
            judge_row(SMOKE)

    async def _follow(
        self, rows: Sequence[str], known: Mapping[str, str], begins: Callable[[str], None]
    ) -> tuple[tuple[str, str], str] | None:
        """Have the worker run what is not done yet; give the test that it was lost in, and how."""
        running: tuple[str, str] | None = None
        self._ready = False
        done = [outcome.test for outcome in self._outcomes]
        failed = sorted(self._failed())
        await self._worker.send({"rows": rows, "done": done, "failed": failed, "known": list(known)})
        try:
            while True:
                kind, content = await self._worker.receive(4 * SIGNAL_WAIT if running else _START)
                if kind == "collected":
                    self._collected = content
                elif kind == "start":
                    row, test = content
                    running = row, test
                    begins(row)
                elif kind == "outcome":
                    running = None
                    failures = [Failure(**failure) for failure in content.pop("failures")]
                    self._outcomes.append(Outcome(**content, failures=failures))
                else:
                    break
            if content:
                self._fail(SMOKE, "", "all tests can be collected and run", content)
            await self._worker.leave()
        except _Lost as lost:
            if running is not None:
                return running, str(lost)
            self._fail(SMOKE, "", "the process goes on after a test, and ends after the last", str(lost))
        return None

    def _failed(self) -> set[str]:
        return {outcome.row for outcome in self._outcomes if outcome.failures}

    def _fail(self, row: str, test: str, expectation: str, observation: str) -> None:
        self._outcomes.append(Outcome(row, test, 0, [Failure(test, expectation, observation)]))


# -- all backends ----------------------------------------------------------------------------------------

Tell = Callable[[str, Verdict], None]
"""Is told of each verdict as it comes: target, verdict."""


async def check(
    targets: Sequence[str],
    choose: Callable[[Sequence[str]], Sequence[str]],
    known: Mapping[str, str],
    *,
    thorough: bool,
    begin: Callable[[Sequence[str], Sequence[str]], Tell],
) -> list[Conclusion]:
    """Put every target under the suite, all at the same time.

    Args:
        targets: Names and ``module:Class`` addresses, each once.
        choose: Is told the rows that the targets have tests for, which may be rows of an author's own, and gives those
            wanted; none for all. Smoke is always run.
        known: Rule → reason, besides what the classes say.
        thorough: Whether tests that search are to search long.
        begin: Is told targets and rows once all targets are ready, and gives who is told the verdicts.

    Raises:
        Refusal: Some target cannot be tested, or *choose* has raised it; no test was run on any.
        Exception: What *begin*, or who it gave, has raised; all that was under way was ended.
    """
    # PYTHONOPTIMIZE would take the assertions out of the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONOPTI"))}
    environment |= {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path),
        "POLLING_THOROUGH": str(int(thorough)),
    }
    with TemporaryDirectory(prefix="polling-conformance-", ignore_cleanup_errors=True) as folder:
        environment["HYPOTHESIS_STORAGE_DIRECTORY"] = folder  # it keeps notes, by default where the user is
        runs, *shares = (
            [_Run(target, Path(folder, f"{part}-{number}"), environment) for number, target in enumerate(targets)]
            for part in ("smoke", *range(_SHARES))
        )
        try:
            ready = await asyncio.gather(*(run.start() for run in runs), return_exceptions=True)
            for error in ready:
                if isinstance(error, BaseException) and not isinstance(error, Refusal):
                    raise error
            refused = [str(refusal) for refusal in ready if isinstance(refusal, Refusal)]
            if refused:
                raise Refusal("\n".join(refused))
            descriptions = [description for description in ready if isinstance(description, Description)]
            own = [row for description in descriptions for row in description.rows]
            rows = choose(own) or list(dict.fromkeys([*RULES, *own]))
            ordered = [SMOKE, *(row for row in rows if row != SMOKE)]
            conclusions = [Conclusion(*pair) for pair in zip(targets, descriptions, strict=True)]
            tell = begin(targets, ordered)
            try:
                async with asyncio.TaskGroup() as group:
                    for conclusion, *of_target in zip(conclusions, runs, *shares, strict=True):
                        reasons = {**conclusion.description.known_failures, **known}
                        group.create_task(_conclude(conclusion, of_target, ordered, reasons, tell))
            except BaseExceptionGroup as errors:
                raise _first_of(errors) from None
        finally:
            for run in (*runs, *chain(*shares)):
                await run.end()
    return conclusions


def _first_of(errors: BaseExceptionGroup) -> BaseException:
    """Give one error of several, which all stopped the same run: the one that came first."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


async def _conclude(
    into: Conclusion, runs: Sequence[_Run], rows: Sequence[str], known: Mapping[str, str], tell: Tell
) -> None:
    """Test a backend: smoke in the first of *runs*, then all else in the others, at the same time."""
    started = time.monotonic()

    def conclude(verdict: Verdict) -> None:
        before = into.verdicts.get(verdict.row)
        if before is not None:  # smoke, to which a trouble of another process is added
            verdict = replace(verdict, failures=[*before.failures, *verdict.failures])
        into.verdicts[verdict.row] = verdict
        tell(into.target, verdict)

    smoke, *shares = runs
    await smoke.test([SMOKE], known, conclude)
    rest = [row for row in rows if row != SMOKE]
    rules, others = [row for row in rest if row in RULES], [row for row in rest if row not in RULES]
    deals = len(shares) - 1
    dealt = [*(rules[number::deals] for number in range(deals)), others]
    if into.verdicts[SMOKE].state is State.PASS:
        async with asyncio.TaskGroup() as group:
            for share, part in zip(shares, dealt, strict=True):
                group.create_task(share.test(part, known, conclude))
    else:
        for row in rest:
            conclude(judge(row, [], 0, known.get(row), smoke_failed=True))
    into.seconds = time.monotonic() - started
