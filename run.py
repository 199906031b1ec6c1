"""Set polling-io up in this checkout and show that it works.

    python3 run.py              install into .venv, say which backends run here, serve and check traffic on each
    python3 run.py test [...]   the same set-up, then the tests; what follows goes to pytest
    python3 run.py serve [...]  the same set-up, then examples/http_hello.py, which gets what follows

Needs Python 3.11 or newer and a pip, the machine's or the one in ensurepip. Everything goes to .venv beside this
file, which later runs use again; nothing else on the machine changes. The exit status is 0 only if all went well.
"""

import os
import subprocess
import sys
from pathlib import Path

# Old Pythons must get as far as the message about them, so nothing here is newer than 3.6 but tomllib, imported late.
OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
PREPARED = VENV / "polling-io-prepared"  # what was installed; written last, so a cut-off set-up is begun again

NO_PIP = """\
run.py: no pip to install with: {python} has neither ensurepip nor a pip of 22.3 or newer.
On Debian and Ubuntu: apt install python3-pip. Elsewhere use a Python that has one: /path/to/python run.py"""


def main(command: str = "", *arguments: str) -> int:
    if sys.version_info < OLDEST:
        oldest, present = "{}.{}".format(*OLDEST), "{}.{}".format(*sys.version_info)
        sys.exit(f"run.py: needs Python {oldest} or newer, and {sys.executable} is {present}: try python3.13 run.py")
    if command in ("-h", "--help"):
        print(__doc__, end="")
        return 0
    if command not in ("", "test", "serve"):
        print(f"run.py: what is {command!r}?\n\n{__doc__}", end="", file=sys.stderr)
        return 2
    prepare()
    if command == "test":
        return become(PYTHON, "-m", "pytest", *(arguments or ("-n", "3")))  # most tests wait most of the time
    if command == "serve":
        return become(PYTHON, "examples/http_hello.py", *arguments)
    return show()


def prepare() -> None:
    """Make .venv, or make it fit pyproject.toml again; does nothing where it fits."""
    import tomllib

    if not runs(PYTHON, "-c", f"import sys; sys.exit(sys.version_info < {OLDEST})"):
        say(f"making .venv with {sys.executable}")
        if call(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)) != 0:
            sys.exit("run.py: could not make .venv: see above")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = f"{ROOT}\n{project}"  # the place too: an editable install points to it
    if PREPARED.exists() and PREPARED.read_text(encoding="utf-8") == wanted:
        return
    say("installing polling-io and what its tests need into .venv")
    needed = tomllib.loads(project)["dependency-groups"]["test"]
    if call(*pip(), "install", "--quiet", "--disable-pip-version-check", "--editable", str(ROOT), *needed) != 0:
        sys.exit("run.py: the installation failed: see above")
    PREPARED.write_text(wanted, encoding="utf-8")


def pip() -> "tuple[str, ...]":  # in quotes for Pythons that cannot subscript it
    """Find the pip that can install into .venv: its own, ensurepip's, or the machine's, in this order."""
    own = (PYTHON, "-m", "pip")
    machine = (sys.executable, "-m", "pip", "--python", PYTHON)
    if runs(*own, "--version") or runs(PYTHON, "-m", "ensurepip"):
        return own
    if runs(*machine, "--version"):
        return machine
    sys.exit(NO_PIP.format(python=sys.executable))


def show() -> int:
    """Print what runs here, then put each backend under traffic, then under the conformance kit."""
    listing = "import polling; print(*polling.available_backends())"
    names = subprocess.run([PYTHON, "-c", listing], cwd=str(ROOT), stdout=subprocess.PIPE, check=True).stdout.split()
    steps = [["-m", "polling"]]
    steps += [["tools/drive.py", "--backend", name.decode()] for name in names]
    steps.append(["-m", "polling_conformance"])
    failed = 0
    for step in steps:
        say("python " + " ".join(step))
        failed += call(PYTHON, *step) != 0
    if failed or not names:
        say(f"{failed} of {len(steps)} steps failed" if failed else "no backend runs here")
        return 1
    say("all is well")
    return 0


def say(text: str) -> None:
    print("==> " + text, flush=True)


def call(*command: str) -> int:
    """Run *command* in the checkout, on this terminal, and give its exit status."""
    return subprocess.call(command, cwd=str(ROOT))


def become(*command: str) -> int:
    """Run *command* in place of this process, where that is possible, so that a signal to one reaches the other."""
    if os.name == "posix":
        os.chdir(str(ROOT))
        os.execv(command[0], command)
    return call(*command)


def runs(*command: str) -> bool:
    """Say whether *command* exists and succeeds, and show nothing of it."""
    try:
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
