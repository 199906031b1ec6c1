"""Check a built wheel: python tools/check_wheel.py [WHEEL]; under tox, by default, the one that tox built.

It must hold our three packages as they stand in this checkout and nothing else, be typed, carry the licence,
depend on nothing, fit every platform, and have metadata that an index accepts.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
ROOTS = {"polling": "polling", "backends": "polling_backends", "conformance": "polling_conformance"}


def expected() -> set[str]:
    """Name every file that belongs in the wheel, as the wheel names it."""
    return {
        path.relative_to(CHECKOUT / root).as_posix()
        for root, package in ROOTS.items()
        for path in (CHECKOUT / root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def faults(wheel: Path) -> list[str]:
    """Say what is wrong with *wheel*, a line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        headers = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    info = metadata.removesuffix("METADATA")
    packed, wanted = {name for name in names if not name.startswith(info)}, expected()
    found = [f"missing: {name}" for name in sorted(wanted - packed)]
    found += [f"does not belong: {name}" for name in sorted(packed - wanted)]
    found += [f"untyped: no {package}/py.typed" for package in ROOTS.values() if f"{package}/py.typed" not in packed]
    found += [f"runtime dependency: {h}" for h in headers if h.startswith("Requires-Dist:") and "extra ==" not in h]
    if f"{info}licenses/LICENSE" not in names:
        found.append(f"no licence in {info}")
    if not wheel.name.endswith("-py3-none-any.whl"):
        found.append(f"not for every platform: {wheel.name}")
    return found


def main() -> int:
    wheel = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["TOX_PACKAGE"])
    found = faults(wheel)
    print("\n".join(found) or f"{wheel.name}: as it should be", flush=True)
    refused = subprocess.call([sys.executable, "-m", "twine", "check", "--strict", str(wheel)])
    return 1 if found or refused else 0


if __name__ == "__main__":
    sys.exit(main())
