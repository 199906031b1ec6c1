"""Write the list of mutants as a page for people: in ``tests/``, ``python -m mutants > ../docs/mutants.md``."""

from __future__ import annotations

from polling_conformance.rules import RULES

from . import FAMILIES, described, stands_on, unusual, wrong_in

print("""\
<!-- Generated from tests/mutants. In tests/, run python -m mutants > ../docs/mutants.md -->

# Wrong backends that the kit catches

A test that cannot fail proves nothing. So the conformance kit is itself tested, with backends and front objects that
are each wrong in one way that authors get wrong: the rules named beside each of them must fail, with a message that
says what was expected and what was observed. The classes are in `tests/mutants/`; each is a few lines on top of the
backend that is named last.

| rule | what is wrong | class | on |
|---|---|---|---|""")
rows = [(rule, wrong) for family in FAMILIES for wrong, breaks in wrong_in(family) for rule in breaks]
order = list(RULES)
for rule, wrong in sorted(rows, key=lambda row: order.index(row[0])):
    print(f"| [{rule}](contract.md#{rule}) | {described(wrong)} | `{wrong.__name__}` | {stands_on(wrong).name} |")
print("""
## Right, though unusual

These do what the contract allows and our backends do not. They must pass every rule.

| what is unusual | class |
|---|---|""")
for right in unusual():
    print(f"| {described(right)} | `{right.__name__}` |")
