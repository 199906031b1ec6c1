"""What the command says: the matrix while it grows, the failures, and the same as JSON, JUnit's XML and a web page."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from string import Template
from typing import TextIO

from polling_conformance.durations import TIME_SCALE
from polling_conformance.rules import CONTRACT_VERSION, FACILITIES, FAMILIES, RULES
from polling_conformance.runner import Conclusion, State, Verdict
from polling_conformance.worker import SMOKE, Failure, row_of

__all__ = ["Matrix", "Out", "Report", "Unwritable", "listing"]

_ABOUT = {
    SMOKE: "The backend can be made, sees a readable source, is woken, and is closed.",
    "machine": "Whatever steps are taken in whatever order, what the waits say is what the contract allows.",
}
"""What the rows that are no rules are about."""


def _sentence(row: str) -> str:
    return RULES[row].sentence if row in RULES else _ABOUT.get(row, "")


def _cell(verdict: Verdict) -> str:
    said = str(verdict.state) if verdict.state.good else verdict.state.upper()
    return f"{said}, {count} not run" if (count := sum(verdict.skipped.values())) else said


def listing(tested: Sequence[str]) -> str:
    """Give all rules, a line each: id, level, status, sentence."""
    lines = []
    for rule in RULES.values():
        status = "tested" if rule.id in tested else "no test"
        for word, said in (("planned", rule.planned), ("declined", rule.declined), ("untested", rule.untested)):
            status = word if said else status
        lines.append(f"{rule.id}  {rule.level:10}  {'core' if rule.core else '':4}  {status:8}  {rule.sentence}")
    return "\n".join(lines) + "\n"


# -- text --------------------------------------------------------------------------------------------------


class Unwritable(Exception):
    """What was found cannot be told: standard output is closed or full, or a report's file is."""


class Out:
    """Standard output, where each piece is written at once."""

    def __init__(self, file: TextIO | None) -> None:
        if file is None:
            raise Unwritable("standard output is closed")
        if hasattr(file, "reconfigure"):
            file.reconfigure(errors="backslashreplace")  # to spell what its encoding does not know
        self._file = file

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks on."""
        return self._file.isatty()

    def write(self, text: str) -> None:
        """Write.

        Raises:
            Unwritable: Nobody reads any more, or there is no room.
        """
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise Unwritable(f"standard output cannot be written: {error.strerror}") from error


class Matrix:
    """Prints a line for each rule, in order, as soon as all backends have a verdict on it."""

    def __init__(self, out: Out, targets: Sequence[str], rows: Sequence[str]) -> None:
        self._out = out
        self._verdicts: dict[str, dict[str, Verdict]] = {row: {} for row in rows}
        self._left = list(rows)
        self._widths = {target: max(len(target), len("pass, 100 not run")) for target in targets}
        self._first = max(len(row) for row in rows)
        self._line = shutil.get_terminal_size((120, 24)).columns if out.is_terminal else 120
        self._print(f"contract {CONTRACT_VERSION}, {_machine()}\n")
        self._print(self._row("", dict(zip(targets, targets, strict=True)), ""))

    def tell(self, target: str, verdict: Verdict) -> None:
        """Take a verdict. One on a row that was printed already is printed once more."""
        self._verdicts[verdict.row][target] = verdict
        if verdict.row not in self._left:
            self._left.insert(0, verdict.row)
        while self._left and len(self._verdicts[self._left[0]]) == len(self._widths):
            row = self._left.pop(0)
            states = {target: _cell(self._verdicts[row][target]) for target in self._widths}
            self._print(self._row(row, states, _sentence(row)))

    def _row(self, head: str, cells: Mapping[str, str], sentence: str) -> str:
        columns = [f"{head:{self._first}}", *(f"{cells[target]:{width}}" for target, width in self._widths.items())]
        line = "  ".join(columns)
        room = self._line - len(line) - 2
        return (
            f"{line}  {textwrap.shorten(sentence, room, placeholder=' ...')}".rstrip() if room > 30 else line.rstrip()
        )

    def _print(self, line: str) -> None:
        self._out.write(line + "\n")


def _machine() -> str:
    try:
        release = version("polling-io")
    except PackageNotFoundError:
        release = "(not installed)"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    scale = f", POLLING_TIME_SCALE={TIME_SCALE:g}" if TIME_SCALE != 1 else ""
    return f"polling-io {release}, {python}, {platform.system()} {platform.release()}{scale}"


# -- all of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What was found, ready to be written down.

    Attributes:
        conclusions: One for each backend.
        rows: The rows of the matrix, in order.
        partial: Whether only some rules were asked for, so that nobody can be said to conform.
        known: The options that named known failures, as they have to be given again.
        thorough: Whether the search was long.
    """

    conclusions: Sequence[Conclusion]
    rows: Sequence[str]
    partial: bool
    known: Sequence[str] = ()
    thorough: bool = False
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(" ", "seconds"))

    @property
    def conforms(self) -> bool:
        """Whether nothing speaks against any of the backends."""
        return all(conclusion.conforms for conclusion in self.conclusions)

    def _verdicts(self, conclusion: Conclusion) -> Iterator[Verdict]:
        return (conclusion.verdicts[row] for row in self.rows)

    def _bad(self, conclusion: Conclusion) -> Iterator[Verdict]:
        """Give the verdicts that need an explanation: those against the backend."""
        return (v for v in self._verdicts(conclusion) if v.state in (State.FAIL, State.UNEXPECTED))

    def headline(self, conclusion: Conclusion) -> str:
        """Say in a line how a backend did."""
        if self.partial:
            said = "keeps what was tested of" if conclusion.conforms else "does not keep"
        else:
            said = "conforms to" if conclusion.conforms else "does not conform to"
        counts = Counter(verdict.state for verdict in self._verdicts(conclusion))
        counted = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
        return f"{conclusion.target} {said} contract {CONTRACT_VERSION}: {counted}; {conclusion.seconds:.1f} s"

    # -- how to see a failure again

    def reproduction(self, conclusion: Conclusion, failure: Failure) -> str:
        """Give a script that shows a failure: the test's own where it gave one, else one that runs the test alone."""
        if failure.script:
            return failure.script
        if not failure.test:
            return ""
        module, colon, name = conclusion.target.partition(":")
        is_suite = conclusion.description.is_suite
        environment = {"POLLING_TIME_SCALE": f"{TIME_SCALE:g}"} if TIME_SCALE != 1 else {}
        environment |= {"POLLING_THOROUGH": "1"} if self.thorough else {}
        about = f"# {row_of(failure.test)} on {conclusion.target}"
        lines = [f"{about}. Save this where the backend can be imported, and run it.", "import os", "", "import pytest"]
        lines += ["", *(f"os.environ[{key!r}] = {value!r}" for key, value in environment.items())]  # before the kit
        lines += ["" for _ in environment][:1]
        lines += [] if is_suite else ["from polling_conformance import BackendConformance"]
        lines += [f"from {module} import {name.partition('.')[0]}"] if colon else []
        lines += ["", "", f"class TestBackend({name if is_suite else 'BackendConformance'}):"]
        if not is_suite:
            lines.append(f"    backend = {name if colon else repr(conclusion.target)}")
        lines.append("    known_failures = {}  # so that it is shown as what it is")
        lines += ["", "", 'if __name__ == "__main__":', f"    test = __file__ + {'::TestBackend::' + failure.test!r}"]
        # With nobody's configuration: a project's own may keep pytest from finding the test.
        options = '"-c", os.devnull, "--noconftest", "-p", "no:cacheprovider"'
        lines += [f"    raise SystemExit(pytest.main([{options}, test]))", ""]
        return "\n".join(lines)

    def command(self, conclusion: Conclusion, row: str) -> str:
        """Give the command that tests one row again."""
        options = [*self.known, *(["--thorough"] if self.thorough else [])]
        return shlex.join(["polling-conformance", conclusion.target, "--rules", row, *options])

    # -- text

    def text(self) -> str:
        """Give what follows the matrix: each failure in full, then a summary for each backend."""
        lines: list[str] = []
        for conclusion in self.conclusions:
            for verdict in self._bad(conclusion):
                lines += ["", *self._explained(conclusion, verdict)]
        for conclusion in self.conclusions:
            lines += ["", self.headline(conclusion), *self._asides(conclusion)]
        return "\n".join(lines) + "\n"

    def _explained(self, conclusion: Conclusion, verdict: Verdict) -> Iterator[str]:
        broken = verdict.state is State.FAIL
        yield f"{verdict.row} {'does not hold' if broken else 'was expected to fail'} on {conclusion.target}"
        if _sentence(verdict.row):
            yield _item("rule", _sentence(verdict.row))
        rule = RULES.get(verdict.row)
        if broken and rule is not None:
            yield _item("intent", rule.intent)
            yield from (_item("check", step) for step in rule.checklist)
            yield from (_item("facility", f"{FACILITIES[key]}: {fact}") for key, fact in rule.facilities.items())
        if verdict.reason:
            yield _item("observed", verdict.reason)
        for failure in verdict.failures:
            if failure.test:
                yield _item("test", failure.test)
            yield _item("expected", failure.expectation)
            yield _item("observed", failure.observation)
            if failure.seed is not None:
                yield _item("seed", failure.seed)
            if failure.script:
                yield _item("script", failure.script)
        if verdict.untried:
            yield _item("not run", _untried(verdict))
        yield _item("again", self.command(conclusion, verdict.row))

    def _asides(self, conclusion: Conclusion) -> Iterator[str]:
        """Name what was neither a pass nor a failure, and why: nothing is passed over in silence."""
        for state in (State.KNOWN, State.NOT_APPLICABLE, State.NOT_RUN):
            by_reason: dict[str, list[str]] = {}
            for verdict in self._verdicts(conclusion):
                if verdict.state is state:
                    by_reason.setdefault(verdict.reason, []).append(verdict.row)
            for reason, rows in by_reason.items():
                yield _aside(f"{state}, {reason.rstrip('.')}: {', '.join(rows)}")
        left_out: dict[str, list[str]] = {}
        for verdict in self._verdicts(conclusion):
            for reason, count in verdict.skipped.items():
                left_out.setdefault(reason, []).append(f"{verdict.row} ({count} of {verdict.tests})")
        for reason, rows in left_out.items():
            yield _aside(f"tests not run, {reason}: {', '.join(rows)}")

    # -- JSON

    def json(self) -> str:
        """Give everything as data."""
        return json.dumps(
            {
                "contract": CONTRACT_VERSION,
                "machine": _machine(),
                "made": self.made,
                "partial": self.partial,
                "conforms": self.conforms,
                "backends": [
                    {
                        "target": conclusion.target,
                        "name": conclusion.description.name,
                        "capabilities": list(conclusion.description.capabilities),
                        "conforms": conclusion.conforms,
                        "seconds": round(conclusion.seconds, 3),
                        "rules": {v.row: self._data(conclusion, v) for v in self._verdicts(conclusion)},
                    }
                    for conclusion in self.conclusions
                ],
            },
            indent=1,
        )

    def _data(self, conclusion: Conclusion, verdict: Verdict) -> dict[str, object]:
        failures = [
            {
                "test": failure.test,
                "expectation": failure.expectation,
                "observation": failure.observation,
                "seed": failure.seed,
                "script": self.reproduction(conclusion, failure),
                "details": failure.details,
            }
            for failure in verdict.failures
        ]
        return {
            "state": verdict.state,
            "reason": verdict.reason,
            "tests": verdict.tests,
            "untried": verdict.untried,
            "skipped": dict(verdict.skipped),
            "seconds": round(verdict.seconds, 3),
            "failures": failures,
        }

    # -- JUnit

    def junit(self) -> str:
        """Give it in the form that CI servers show: a suite for each backend, a case for each rule."""
        top = ET.Element("testsuites", name=f"polling-conformance {CONTRACT_VERSION}")
        for conclusion in self.conclusions:
            target = _printable(conclusion.target)
            suite = ET.SubElement(top, "testsuite", name=target, time=f"{conclusion.seconds:.3f}")
            properties = ET.SubElement(suite, "properties")
            ET.SubElement(properties, "property", name="machine", value=_printable(_machine()))
            counts = Counter[str]()
            for verdict in self._verdicts(conclusion):
                case = ET.SubElement(suite, "testcase", classname=target, name=verdict.row)
                case.set("time", f"{verdict.seconds:.3f}")
                kind = "failure" if not verdict.state.good else "skipped" if verdict.state is not State.PASS else ""
                counts.update(["tests", kind])
                if kind:
                    observed = verdict.failures[0].observation.partition("\n")[0] if verdict.failures else ""
                    found = ET.SubElement(
                        case, kind, message=_printable(f"{verdict.state}: {verdict.reason or observed}")
                    )
                    if kind == "failure":
                        found.text = _printable("\n".join(self._explained(conclusion, verdict)))
                if verdict.skipped:
                    lines = (
                        f"{count} of {verdict.tests} tests not run: {why}" for why, count in verdict.skipped.items()
                    )
                    ET.SubElement(case, "system-out").text = _printable("\n".join(lines))
            for attribute, kind in (("tests", "tests"), ("failures", "failure"), ("skipped", "skipped")):
                suite.set(attribute, str(counts[kind]))
            suite.set("errors", "0")
        ET.indent(top)
        return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(top, encoding="unicode") + "\n"

    # -- HTML

    def html(self) -> str:
        """Give a page that needs nothing but itself."""
        template = Template((files("polling_conformance") / "report.html").read_text(encoding="utf-8"))
        families = {row.partition("-")[0]: "" for row in self.rows}
        for letters in families:
            families[letters] = f"{letters}: {FAMILIES[letters].title}" if letters in FAMILIES else letters
        states = {verdict.state for conclusion in self.conclusions for verdict in self._verdicts(conclusion)}
        explained = [(c, v) for c in self.conclusions for v in self._verdicts(c) if v.failures or not v.state.good]
        return template.substitute(
            contract=escape(CONTRACT_VERSION),
            machine=escape(_machine()),
            made=escape(self.made),
            summaries="\n".join(
                f'<li class="{"good" if c.conforms else "bad"}">{escape(self.headline(c))}</li>'
                for c in self.conclusions
            ),
            families="".join(f'<option value="{escape(k)}">{escape(v)}</option>' for k, v in families.items()),
            states="".join(f'<option value="{s}">{s}</option>' for s in State if s in states),
            targets="".join(f'<th scope="col">{escape(c.target)}</th>' for c in self.conclusions),
            rows="\n".join(self._html_row(row) for row in self.rows),
            failures="\n".join(self._html_failure(c, v) for c, v in explained) or "<p>None.</p>",
        )

    def _html_row(self, row: str) -> str:
        verdicts = [(conclusion, conclusion.verdicts[row]) for conclusion in self.conclusions]
        cells = []
        for conclusion, verdict in verdicts:
            said = f'<span class="{_slug(verdict.state)}">{escape(verdict.state)}</span>'
            if verdict.failures or not verdict.state.good:
                said = f'<a href="#{_anchor(conclusion, verdict)}">{said}</a>'
            reasons = [verdict.reason, *(f"{count} tests not run: {why}" for why, count in verdict.skipped.items())]
            if verdict.skipped:
                said += f" <small>{sum(verdict.skipped.values())} of {verdict.tests} not run</small>"
            title = f' title="{escape("; ".join(filter(None, reasons)))}"' if any(reasons) else ""
            cells.append(f'<td data-target="{escape(conclusion.target)}"{title}>{said}</td>')
        states = escape(json.dumps(sorted({verdict.state for _, verdict in verdicts})))
        rule = RULES.get(row)
        level = rule.level if rule else ""
        return (
            f'<tr data-row="{escape(row)}" data-states="{states}">'
            f'<th scope="row">{escape(row)}</th>{"".join(cells)}'
            f'<td class="sentence">{_marked(_sentence(row))} <small>{escape(level)}</small></td></tr>'
        )

    def _html_failure(self, conclusion: Conclusion, verdict: Verdict) -> str:
        rule = RULES.get(verdict.row)
        facts: list[tuple[str, str]] = [("Rule", _marked(_sentence(verdict.row)))]
        if rule is not None:
            facts.append(("Intent", _marked(rule.intent)))
            facts.append(("Check", f"<ul>{''.join(f'<li>{_marked(step)}</li>' for step in rule.checklist)}</ul>"))
            known = "".join(f"<li>{FACILITIES[key]}: {_marked(fact)}</li>" for key, fact in rule.facilities.items())
            facts.append(("Facilities", f"<ul>{known}</ul>" if known else ""))
        facts.append(("Reason", escape(verdict.reason)))
        for failure in verdict.failures:
            facts.append(("Test", f"<code>{escape(failure.test)}</code>" if failure.test else ""))
            facts.append(("Expected", f"<pre>{escape(failure.expectation)}</pre>"))
            facts.append(("Observed", f"<pre>{escape(failure.observation)}</pre>"))
            facts.append(("Seed", escape(failure.seed or "")))
            script = self.reproduction(conclusion, failure)
            facts.append(("Script", f"<pre>{escape(script)}</pre>" if script else ""))
            details = f"<details><summary>Traceback and output</summary><pre>{escape(failure.details)}</pre></details>"
            facts.append(("Details", details if failure.details else ""))
        facts.append(("Not run", escape(_untried(verdict)) if verdict.untried else ""))
        facts.append(("Again", f"<code>{escape(self.command(conclusion, verdict.row))}</code>"))
        listed = "".join(f"<dt>{name}</dt><dd>{said}</dd>" for name, said in facts if said)
        states = escape(json.dumps([verdict.state]))
        return (
            f'<details class="failure" id="{_anchor(conclusion, verdict)}" open '
            f'data-row="{escape(verdict.row)}" data-states="{states}">'
            f"<summary><strong>{escape(verdict.row)}</strong> on {escape(conclusion.target)}: "
            f'<span class="{_slug(verdict.state)}">{escape(verdict.state)}</span></summary><dl>{listed}</dl></details>'
        )


def _untried(verdict: Verdict) -> str:
    return f"{verdict.untried} more of the rule's {verdict.tests} tests: the first failure decides"


def _aside(said: str) -> str:
    return textwrap.fill(said, 118, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False)


def _item(name: str, said: str) -> str:
    """Lay out a named text: wrapped if it is prose, line by line if it has lines."""
    head, rest = f"    {name + ':':10}", " " * 14
    if "\n" in said.strip():
        return head + said.strip().replace("\n", "\n" + rest)
    if len(said) < 104:
        return head + said
    return textwrap.fill(
        said, 118, initial_indent=head, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _printable(text: str) -> str:
    """Replace what XML cannot hold: most control characters, and surrogates."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _marked(text: str) -> str:
    """Escape a text of the contract, in which backquotes mark code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _slug(state: State) -> str:
    return state.replace(" ", "-")


def _anchor(conclusion: Conclusion, verdict: Verdict) -> str:
    return escape(re.sub(r"[^\w.-]", "-", f"{conclusion.target}-{verdict.row}"))
