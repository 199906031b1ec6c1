"""Write the contract as a page for people: ``python -m polling_conformance.contract docs/contract.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from polling.backend import Capability
from polling_conformance.rules import CONTRACT_VERSION, FACILITIES, FAMILIES, RULES, Level, Rule

__all__ = ["render"]

_INTRODUCTION = f"""\
<!-- Generated from conformance/polling_conformance/rules.toml. Edit that file, then run
     python -m polling_conformance.contract docs/contract.md -->

# The contract

Version {CONTRACT_VERSION}.

This page lists what `polling` promises on every backend, and what whoever writes a backend has to keep. Each
promise is a rule with an id that never changes. The conformance kit (`polling-conformance`) has a test for
each, and the id is in the test's name; where there is none, the rule says why.

The version has three numbers. The first changes when a promise is changed or withdrawn, the second when
promises are added, the third when the same promises are worded better. Every report of the kit prints it.

## How to read a rule

MUST, MUST NOT, SHOULD and MAY have the meaning that RFC 2119 gives them. Some words are used in one sense
throughout:

- A **source** is what is watched: an object with `fileno()`, or a bare descriptor. A **registration** ties it
  to a **token** (any object of the caller's), an **interest** and a **mode**.
- A **wait** is one call of `Poll.poll()`, and a **batch** is what it returns. A **wake** is one call of
  `Waker.wake()`, and the **doorbell** is what the poll has inside to be woken by.
- A source is **drained**, or filled, when the next read, or write, would block: BlockingIOError, or EAGAIN in
  other words.
- **Arming** begins the watch for the next event: by `register`, `reregister` or `rearm`.
- A backend's **facility** is what the kernel offers: epoll, kqueue, poll(2), completion ports. Facts about
  them are given with the rules because they are what most failures come from. They describe the facility and
  not the library, which hides them.

The level says how binding a rule is:

- **required**: every backend keeps it.
- **allowed outcomes**: every backend keeps it, in one of the ways that are listed. Callers must be prepared
  for each of them.
- **capability**: it depends on something that a backend declares in `Backend.capabilities`. The rule says
  what holds with the capability and what holds without it. A declaration is checked both ways: what is
  declared must work, and what is not must not.
- **hint**: it bounds a statement that may be missing and must not be false.

A rule that needs a kind of source which a backend does not take (pipes without `PIPES`, terminals without
`TTY`) does not apply to that backend. **Core** marks the hundred rules to begin with when writing a backend.
**Planned** rules speak of parts of the library that are not built yet, and count in no verdict. **Declined**
ones are listed so that the question need not be asked again.
"""


def render() -> str:
    """Give the whole page as Markdown."""
    return "\n".join([_INTRODUCTION, *_overview(), *(line for family in FAMILIES for line in _family(family))])


def _overview() -> Iterator[str]:
    yield "## Families\n"
    yield "| rules | about |"
    yield "|---|---|"
    for letters, family in FAMILIES.items():
        yield f"| {letters} | [{family.title}](#{letters}) |"
    yield "\n## Capabilities\n"
    yield "| capability | rules |"
    yield "|---|---|"
    for capability in Capability:
        ids = [rule.id for rule in RULES.values() if rule.capability is capability]
        yield f"| `{capability.name}` | {', '.join(f'[{id_}](#{id_})' for id_ in ids)} |"
    yield ""


def _family(letters: str) -> Iterator[str]:
    family = FAMILIES[letters]
    yield f'<a id="{letters}"></a>\n\n## {letters}: {family.title}\n\n{family.introduction}\n'
    for rule in RULES.values():
        if rule.family == letters:
            yield from _rule(rule)


def _rule(rule: Rule) -> Iterator[str]:
    yield f'<a id="{rule.id}"></a>\n\n### {rule.id}\n\n{_badge(rule)}\n\n{rule.sentence}\n'
    if rule.outcomes:
        yield "Allowed outcomes:\n"
        yield from (f"- {outcome}" for outcome in rule.outcomes)
        yield ""
    yield f"*Why:* {rule.intent}\n"
    if rule.declined:
        yield f"*Declined:* {rule.declined}\n"
    if rule.untested:
        yield f"*Not tested:* {rule.untested}\n"
    if not rule.declined:
        yield "*To check when it fails:*\n"
        yield from (f"- {step}" for step in rule.checklist)
        yield ""
    if rule.facilities:
        yield "*Facilities:*\n"
        yield from (f"- {FACILITIES[key]}: {fact}" for key, fact in rule.facilities.items())
        yield ""


def _badge(rule: Rule) -> str:
    if rule.declined:
        return "**declined**"
    parts = ["**allowed outcomes**" if rule.level is Level.ALLOWED else f"**{rule.level}**"]
    if rule.capability is not None:
        parts.append(f"`{rule.capability.name}`")
    parts += [word for word, said in [("core", rule.core), ("planned", rule.planned)] if said]
    return " · ".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8", newline="\n")
