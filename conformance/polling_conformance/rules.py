"""The contract as data: every promise a backend makes, read from ``rules.toml`` and checked while it is read.

The suite's tests carry a rule's id in their names, reports explain a failure with its rule's words, and
``docs/contract.md`` is generated from it (see ``polling_conformance.contract``). So the file is the one place
where a promise is written down, and a mistake in it stops the import with an error that names the rule.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

from polling.backend import Capability

__all__ = ["CONTRACT_VERSION", "FACILITIES", "FAMILIES", "RULES", "Contract", "Family", "Level", "Rule", "parse"]

FACILITIES: Final[Mapping[str, str]] = MappingProxyType(
    {"epoll": "epoll", "kqueue": "kqueue", "poll": "poll(2)", "iocp": "completion ports"}
)
"""The kernel facilities on which the rules state facts: key in the file → what people call it."""


class Level(StrEnum):
    """How binding a rule is, and what a backend must declare for it."""

    REQUIRED = "required"
    """Binds every backend."""

    ALLOWED = "allowed"
    """Binds every backend. Each of the listed outcomes satisfies it, and no other."""

    CAPABILITY = "capability"
    """Says what holds with a capability, and what without. The declaration itself is checked both ways."""

    HINT = "hint"
    """Bounds a statement that may be missing and must not be false."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """One promise.

    Attributes:
        id: Family and number, such as ``EDG-05``. Never re-used for another promise.
        level: How binding it is.
        sentence: The promise, with MUST, SHOULD and MAY as in RFC 2119.
        intent: Why a user needs it.
        checklist: Where the author of a backend looks first when it fails.
        core: Whether it belongs to the first hundred, which a new backend meets first.
        capability: What the rule depends on (CAPABILITY), or which hint it bounds (HINT).
        outcomes: What satisfies the rule (ALLOWED), each on its own.
        facilities: How the kernel facilities differ here, by key of ``FACILITIES``.
        planned: The part of the library it speaks of is not built yet.
        declined: Why the library does not promise it.
        untested: Why the kit cannot test it.
    """

    id: str
    level: Level
    sentence: str
    intent: str
    checklist: tuple[str, ...]
    core: bool = False
    capability: Capability | None = None
    outcomes: tuple[str, ...] = ()
    facilities: Mapping[str, str]
    planned: bool = False
    declined: str | None = None
    untested: str | None = None

    @property
    def family(self) -> str:
        """The letters of the id, a key of ``FAMILIES``."""
        return self.id.partition("-")[0]


class Family(NamedTuple):
    """Rules about one subject."""

    title: str
    introduction: str


class Contract(NamedTuple):
    """A file of rules, in the file's order."""

    version: str
    families: Mapping[str, Family]
    rules: Mapping[str, Rule]


class _Table:
    """One TOML table being taken apart: each key is taken once, and what is left over is an error."""

    def __init__(self, where: str, table: object) -> None:
        if not isinstance(table, dict):
            raise ValueError(f"{where}: must be a table, not {table!r}")
        self.where = where
        self.left: dict[str, object] = dict(table)

    def text(self, key: str) -> str:
        """Take a text that must be there. Line breaks are layout: they become single spaces."""
        text = self.optional_text(key)
        if text is None:
            raise ValueError(f"{self.where}: {key!r} is missing")
        return text

    def optional_text(self, key: str) -> str | None:
        value = self.left.pop(key, None)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{self.where}: {key!r} must be a text, not {value!r}")
        return " ".join(value.split())

    def flag(self, key: str) -> bool:
        value = self.left.pop(key, False)
        if not isinstance(value, bool):
            raise ValueError(f"{self.where}: {key!r} must be true or false, not {value!r}")
        return value

    def array(self, key: str) -> list[object]:
        value = self.left.pop(key, [])
        if not isinstance(value, list):
            raise ValueError(f"{self.where}: {key!r} must be a list, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        items = _Table(f"{self.where}: {key!r}", {str(i): item for i, item in enumerate(self.array(key), 1)})
        return tuple(items.text(i) for i in list(items.left))

    def end(self) -> None:
        if self.left:
            raise ValueError(f"{self.where}: unknown key {', '.join(map(repr, self.left))}")


def parse(text: str) -> Contract:
    """Read a file of rules.

    Raises:
        ValueError: The text is not TOML, or a rule is not as it must be. The message names the rule and the key.
    """
    top = _Table("the contract", tomllib.loads(text))
    version = top.text("version")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"the contract: 'version' must be three numbers such as 1.0.0, not {version!r}")
    families: dict[str, Family] = {}
    for item in top.array("family"):
        table = _Table("a family", item)
        letters = table.text("letters")
        table.where = f"family {letters}"
        if not re.fullmatch(r"[A-Z]{3}", letters) or letters in families:
            raise ValueError(f"family {letters}: the letters must be three capitals, and its own")
        families[letters] = Family(table.text("title"), table.text("introduction"))
        table.end()
    rules: dict[str, Rule] = {}
    for item in top.array("rule"):
        rule = _rule(_Table("a rule", item))
        if rule.id in rules:
            raise ValueError(f"{rule.id}: the id is used twice")
        if rule.family not in families:
            raise ValueError(f"{rule.id}: there is no family {rule.family}")
        rules[rule.id] = rule
    top.end()
    return Contract(version, MappingProxyType(families), MappingProxyType(rules))


def _rule(table: _Table) -> Rule:
    id_ = table.where = table.text("id")
    if not re.fullmatch(r"[A-Z]{3}-[0-9]{2}", id_):
        raise ValueError(f"{id_}: an id is three capitals, a hyphen and two digits")
    level, capability = table.text("level"), table.optional_text("capability")
    if level not in set(Level):
        raise ValueError(f"{id_}: unknown level {level!r}; known are {', '.join(Level)}")
    if capability is not None and capability not in Capability.__members__:
        raise ValueError(f"{id_}: unknown capability {capability!r}; known are {', '.join(Capability.__members__)}")
    facilities = _Table(f"{id_}: 'facilities'", table.left.pop("facilities", {}))
    rule = Rule(
        id=id_,
        level=Level(level),
        sentence=table.text("sentence"),
        intent=table.text("intent"),
        checklist=table.texts("checklist"),
        core=table.flag("core"),
        capability=None if capability is None else Capability[capability],
        outcomes=table.texts("outcomes"),
        facilities=MappingProxyType({key: facilities.text(key) for key in FACILITIES if key in facilities.left}),
        planned=table.flag("planned"),
        declined=table.optional_text("declined"),
        untested=table.optional_text("untested"),
    )
    facilities.end()
    table.end()
    if rule.level is Level.CAPABILITY and rule.capability is None and not rule.declined:
        raise ValueError(f"{id_}: a rule of level 'capability' must name its capability")
    if rule.level not in (Level.CAPABILITY, Level.HINT) and rule.capability is not None:
        raise ValueError(f"{id_}: a rule of level {level!r} depends on no capability")
    if (rule.level is Level.ALLOWED) != (len(rule.outcomes) > 1):
        raise ValueError(f"{id_}: 'outcomes' belong to level 'allowed', two at least")
    if not 1 <= len(rule.checklist) <= 4:
        raise ValueError(f"{id_}: 'checklist' must have one to four items")
    if rule.planned + (rule.declined is not None) + (rule.untested is not None) > 1:
        raise ValueError(f"{id_}: a rule is planned, declined or untested, not several of them")
    return rule


_CONTRACT = parse((files("polling_conformance") / "rules.toml").read_text(encoding="utf-8"))

CONTRACT_VERSION: Final[str] = _CONTRACT.version
"""Major: a promise was changed or withdrawn. Minor: promises were added. Patch: the same promises, better worded."""

FAMILIES: Final[Mapping[str, Family]] = _CONTRACT.families
"""Letters → family, in the contract's order."""

RULES: Final[Mapping[str, Rule]] = _CONTRACT.rules
"""Id → rule, in the contract's order."""
