"""The contract: its file is well-formed, complete and stable, and the published page says the same."""

import re
from pathlib import Path

import pytest

from polling.backend import Capability
from polling_conformance import contract
from polling_conformance.rules import CONTRACT_VERSION, FAMILIES, RULES, Level, parse

PAGE = Path(__file__).parents[1] / "docs" / "contract.md"

# The rules that a new backend meets first. Written out once more here, so that none can slip away unnoticed.
CORE = """
REG-01 REG-02 REG-03 REG-05 REG-06 REG-09 REG-10 REG-11 REG-12 REG-13 REG-14 REG-15 REG-16 REG-17 REG-18 REG-20
REG-21 REG-23 REG-25 REG-26
INT-01 INT-02 INT-04 INT-06 INT-07 INT-08 INT-10
LVL-01 LVL-02 LVL-03 LVL-04
EDG-01 EDG-02 EDG-03 EDG-05 EDG-06 EDG-07 EDG-11 EDG-12 EDG-15 EDG-16
ONE-01 ONE-02 ONE-03 ONE-04 ONE-05 ONE-07 ONE-09
EVT-01 EVT-02 EVT-03 EVT-04 EVT-05 EVT-08 EVT-10 EVT-11 EVT-12 EVT-13 EVT-15 EVT-16 EVT-22
MRG-01 MRG-02
TMO-01 TMO-02 TMO-03 TMO-04 TMO-06 TMO-07 TMO-09
SIG-01 SIG-02 SIG-03
WAK-01 WAK-02 WAK-03 WAK-04 WAK-05 WAK-06 WAK-07
CAP-01 CAP-02 CAP-03 CAP-07
CLS-01 CLS-02 CLS-03 CLS-05 CLS-06
FRK-01 FRK-02
GCL-01 GCL-04
SRC-01 SRC-03 SRC-04 UDP-01 UDP-02 UDP-03 THR-01
"""

# Family → how many rules it has. An id is never re-used, so these numbers only grow.
SIZES = {
    "REG": 28, "INT": 11, "LVL": 6, "EDG": 18, "ONE": 10, "EVT": 22, "MRG": 3, "TMO": 10, "SIG": 10, "WAK": 11,
    "CAP": 8, "SPU": 2, "CLS": 6, "FRK": 3, "GCL": 4, "SRC": 6, "UDP": 4, "WIN": 3, "TIM": 6, "USR": 10,
    "THR": 5, "LOP": 5,
}  # fmt: skip

GOOD = """
version = "1.2.3"
[[family]]
letters = "ABC"
title = "Title"
introduction = "Introduction."
[[rule]]
id = "ABC-01"
level = "required"
sentence = "It MUST."
intent = "Because."
checklist = ["Does it?"]
facilities.epoll = "A fact."
"""


def test_the_ids_are_those_that_were_published() -> None:
    assert list(RULES) == [f"{family}-{number:02}" for family, size in SIZES.items() for number in range(1, size + 1)]
    assert list(FAMILIES) == list(SIZES)


def test_the_core_set_is_the_hundred_that_were_chosen() -> None:
    core = CORE.split()
    assert len(core) == 100
    assert {rule.id for rule in RULES.values() if rule.core} == set(core)


@pytest.mark.parametrize("id_", RULES)
def test_each_rule_binds_somebody_in_the_words_of_rfc_2119(id_: str) -> None:
    rule = RULES[id_]
    keywords = re.findall(r"\b(?:MUST(?: NOT)?|SHOULD(?: NOT)?|MAY)\b", rule.sentence)
    assert keywords, f"{id_} says neither MUST nor SHOULD nor MAY"
    if rule.level is Level.REQUIRED:
        assert "MUST" in keywords or "MUST NOT" in keywords, f"{id_} is required and has no MUST"


def test_each_capability_has_a_rule_that_checks_its_declaration() -> None:
    assert {rule.capability for rule in RULES.values()} - {None} == set(Capability)
    for rule in RULES.values():
        if rule.capability is not None:
            assert f"`{rule.capability.name}`" in rule.sentence, f"{rule.id} does not name its capability"


def test_rules_that_are_mentioned_exist() -> None:
    for rule in RULES.values():
        for mentioned in re.findall(r"\b[A-Z]{3}-\d\d\b", f"{rule.sentence} {rule.intent} {' '.join(rule.checklist)}"):
            assert mentioned in RULES, f"{rule.id} mentions {mentioned}"


def test_the_published_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == contract.render(), (
        "docs/contract.md is not what the rules say: run python -m polling_conformance.contract docs/contract.md"
    )


def test_the_page_has_an_anchor_for_each_rule_and_no_dead_link() -> None:
    page = contract.render()
    anchors = re.findall(r'<a id="([^"]+)"></a>', page)
    assert sorted(anchors) == sorted([*FAMILIES, *RULES])
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= set(anchors)
    assert f"Version {CONTRACT_VERSION}." in page


def test_a_file_of_rules_is_read_as_written() -> None:
    version, families, rules = parse(GOOD)
    assert version == "1.2.3"
    assert families["ABC"].title == "Title"
    rule = rules["ABC-01"]
    assert (rule.id, rule.family, rule.level, rule.core) == ("ABC-01", "ABC", Level.REQUIRED, False)
    assert (rule.sentence, rule.intent, rule.checklist) == ("It MUST.", "Because.", ("Does it?",))
    assert dict(rule.facilities) == {"epoll": "A fact."}
    assert (rule.capability, rule.outcomes, rule.planned, rule.declined, rule.untested) == (None, (), False, None, None)


def test_line_breaks_in_a_text_are_layout() -> None:
    rules = parse(GOOD.replace('"It MUST."', '"""\nIt\n  MUST.\n"""')).rules
    assert rules["ABC-01"].sentence == "It MUST."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", 'surprise = "?"', "ABC-01: unknown key 'surprise'"),
        ("", GOOD.partition("[[rule]]")[2].join(["[[rule]]", ""]), "ABC-01: the id is used twice"),
        ("ABC-01", "ABC-1", "ABC-1: an id is three capitals"),
        ("ABC-01", "XYZ-01", "XYZ-01: there is no family XYZ"),
        ('id = "ABC-01"', "", "a rule: 'id' is missing"),
        ('"required"', '"optional"', "ABC-01: unknown level 'optional'"),
        ('"required"', '"capability"', "ABC-01: a rule of level 'capability' must name its capability"),
        ('"required"', '"capability"\ncapability = "TELEPATHY"', "ABC-01: unknown capability 'TELEPATHY'"),
        ('"required"', '"required"\ncapability = "PIPES"', "ABC-01: a rule of level 'required' depends on no"),
        ('"required"', '"allowed"', "ABC-01: 'outcomes' belong to level 'allowed'"),
        ('"required"', '"required"\noutcomes = ["a", "b"]', "ABC-01: 'outcomes' belong to level 'allowed'"),
        ('sentence = "It MUST."', "", "ABC-01: 'sentence' is missing"),
        ('"It MUST."', '" "', "ABC-01: 'sentence' must be a text"),
        ('"Because."', "3", "ABC-01: 'intent' must be a text"),
        ('["Does it?"]', '"Does it?"', "ABC-01: 'checklist' must be a list"),
        ('["Does it?"]', "[]", "ABC-01: 'checklist' must have one to four items"),
        ('["Does it?"]', '["Does it?", 2]', "ABC-01: 'checklist': '2' must be a text"),
        ("facilities.epoll", "facilities.devpoll", "ABC-01: 'facilities': unknown key 'devpoll'"),
        ('facilities.epoll = "A fact."', 'facilities = "A fact."', "ABC-01: 'facilities': must be a table"),
        ("", 'core = "yes"', "ABC-01: 'core' must be true or false"),
        ("", 'planned = true\nuntested = "No."', "ABC-01: a rule is planned, declined or untested"),
        ('"1.2.3"', '"1.2"', "the contract: 'version' must be three numbers"),
        ('"ABC"', '"abc"', "family abc: the letters must be three capitals"),
        ("[[family]]", "surprise = 1\n[[family]]", "the contract: unknown key 'surprise'"),
        ('title = "Title"', 'title = "Title"\nnumber = 1', "family ABC: unknown key 'number'"),
        ("[[rule]]", "[[rule", "Expected"),
    ],
)
def test_a_mistake_in_the_file_names_the_rule_and_the_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1) if old else GOOD + new
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def rules_with_a_test() -> set[str]:
    """Read the ids from the names of the suite's tests: ``def test_EDG_05_...`` tests EDG-05."""
    suite = Path(contract.__file__).parent / "suite"
    names = "".join(path.read_text(encoding="utf-8") for path in suite.glob("*.py"))
    return {f"{family}-{number}" for family, number in re.findall(r"^ +def test_([A-Z]{3})_(\d\d)_\w", names, re.M)}


def test_each_rule_has_a_test_or_says_why_not() -> None:
    tested = rules_with_a_test()
    excused = {rule.id for rule in RULES.values() if rule.planned or rule.declined or rule.untested}
    assert not (missing := sorted(set(RULES) - tested - excused)), f"neither a test nor a reason: {' '.join(missing)}"
    assert not (stale := sorted(tested & excused)), f"has a test, and says why it has none: {' '.join(stale)}"


def test_each_test_of_the_suite_is_about_a_rule_that_exists() -> None:
    tested = rules_with_a_test()
    assert tested
    assert tested <= set(RULES), f"no such rule: {' '.join(sorted(tested - set(RULES)))}"
