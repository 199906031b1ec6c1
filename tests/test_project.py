"""What the project says about itself in several places is one thing, and its packages import only what they may."""

from __future__ import annotations

import ast
import configparser
import re
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
ROOTS = {"polling": "polling", "polling_backends": "backends", "polling_conformance": "conformance"}
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ["3.11", "3.12", "3.13"]


def text(path: str) -> str:
    return (CHECKOUT / path).read_text(encoding="utf-8")


def tox_environments() -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string(text("tox.ini"))
    return tox["tox"]["env_list"].split(", ")


def imports(source: str) -> set[str]:
    """Name the top-level packages that *source* imports when it runs: not those for type checkers only."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        pending.extend(ast.iter_child_nodes(node))
    return found


# -- Pythons ---------------------------------------------------------------------------------------------------


def test_every_place_names_the_same_pythons() -> None:
    prefix = "Programming Language :: Python :: "
    classifiers = [c.removeprefix(prefix) for c in PROJECT["project"]["classifiers"] if c.startswith(prefix + "3.")]
    matrix = re.search(r"^ +python: \[(.*)\]$", text(".github/workflows/ci.yml"), re.MULTILINE)
    script = re.search(r"^for version in (.*); do$", text(".ci/run"), re.MULTILINE)
    assert matrix is not None, "the CI workflow has no matrix of Pythons"
    assert script is not None, ".ci/run has no loop over Pythons"
    said = {
        "classifiers": classifiers,
        "tox.ini": [f"{e[2]}.{e[3:]}" for e in tox_environments() if re.fullmatch(r"py\d+", e)],
        "workflow": re.findall(r"[\d.]+", matrix[1]),
        ".ci/run": script[1].split(),
    }
    assert said == dict.fromkeys(said, PYTHONS)


def test_every_place_names_the_same_oldest_python() -> None:
    oldest = PYTHONS[0]
    tool = PROJECT["tool"]
    said = {
        "requires-python": PROJECT["project"]["requires-python"].removeprefix(">="),
        "mypy": tool["mypy"]["python_version"],
        "ruff": tool["ruff"]["target-version"].replace("py3", "3."),
        "run.py": ".".join(re.findall(r"\d+", text("run.py").partition("\nOLDEST = ")[2].partition("\n")[0])),
        "README.md": ".".join(re.findall(r"Python (\d+\.\d+) or newer", text("README.md"))),
    }
    assert said == dict.fromkeys(said, oldest)


# -- checks ----------------------------------------------------------------------------------------------------


def test_the_gate_needs_every_other_job() -> None:
    workflow = text(".github/workflows/ci.yml")
    jobs = set(re.findall(r"^  ([\w-]+):$", workflow.partition("\njobs:\n")[2], re.MULTILINE))
    needs = re.search(r"^    needs: \[(.*)\]$", workflow, re.MULTILINE)
    results = re.search(r'= "((?:success ?)+)"$', workflow, re.MULTILINE)
    assert needs is not None, "the gate names no jobs"
    assert results is not None, "the gate does not look at results"
    assert set(needs[1].split(", ")) == jobs - {"gate"}
    assert len(results[1].split()) == len(jobs) - 1, "the gate counts another number of jobs than it needs"


def test_ci_runs_every_default_environment_of_tox() -> None:
    checks = [environment for environment in tox_environments() if not environment.startswith("py")]
    matrix = re.search(r"^ +check: \[(.*)\]$", text(".github/workflows/ci.yml"), re.MULTILINE)
    assert matrix is not None, "the CI workflow has no matrix of checks"
    assert matrix[1].split(", ") == checks
    assert " ".join(checks) in text(".ci/run")


# -- dependencies ----------------------------------------------------------------------------------------------


def test_nothing_is_needed_at_run_time() -> None:
    assert PROJECT["project"]["dependencies"] == []


def test_the_test_group_holds_what_the_extra_and_the_examples_need() -> None:
    groups = PROJECT["dependency-groups"]
    extra = PROJECT["project"]["optional-dependencies"]["conformance"]
    assert {*extra, *groups["examples"]} <= set(groups["test"])


def test_no_plugin_loads_into_strangers_pytest_runs() -> None:
    assert "pytest11" not in PROJECT["project"].get("entry-points", {})


@pytest.mark.parametrize(
    "source",
    [
        "import ctypes",
        "import ctypes.util as u",
        "from ctypes import cdll",
        "def f():\n    try:\n        from ctypes.util import x\n    except ImportError: pass",
        "if TYPE_CHECKING:\n    import ast\nelse:\n    import ctypes",
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str) -> None:
    assert imports(source) == {"ctypes"}


def test_an_import_for_type_checkers_is_not_counted() -> None:
    assert imports("if typing.TYPE_CHECKING:\n    import x\nfrom . import y\nfrom .z import w") == set()


@pytest.mark.parametrize("package", ROOTS)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    allowed = (sys.stdlib_module_names - {"ctypes", "_ctypes"}) | {package, "polling"}
    if package == "polling_conformance":
        allowed |= {"_pytest", "hypothesis", "pytest"}
    modules = sorted((CHECKOUT / ROOTS[package] / package).rglob("*.py"))
    assert modules, f"{package} has no modules"
    wrong = {str(m.relative_to(CHECKOUT)): imports(m.read_text(encoding="utf-8")) - allowed for m in modules}
    assert not {module: names for module, names in wrong.items() if names}


@pytest.mark.parametrize("package", ROOTS)
def test_a_package_is_marked_as_typed(package: str) -> None:
    assert (CHECKOUT / ROOTS[package] / package / "py.typed").is_file()


# -- documents -------------------------------------------------------------------------------------------------


def test_the_changelog_has_a_section_for_the_version() -> None:
    assert f"\n## {PROJECT['project']['version']}" in text("CHANGELOG.md").replace("[", "").replace("]", "")


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/decisions.md",
        "docs/mio.md",
        "docs/threads.md",
        "docs/tutorial.md",
        "examples/third_party_backend/README.md",
    ],
)
def test_links_within_the_checkout_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(document))
    assert [t for t in targets if not (CHECKOUT / document).parent.joinpath(t).exists()] == []


def test_decisions_are_numbered_in_order() -> None:
    numbers = [int(n) for n in re.findall(r"^(\d+)\. \*\*", text("docs/decisions.md"), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_ci_runs_the_commands_that_the_readme_gives() -> None:
    commands = re.findall(r"^python3 run\.py.*$", text("README.md"), re.MULTILINE)
    assert commands == ["python3 run.py", "python3 run.py test"]
    assert [c for c in commands if f'"${{bare[@]}}" {c})' not in text(".ci/run")] == []
