"""Run the tests again and again while every core is kept busy, and stop at the first failure.

    python tools/repeat.py [--times 20] [pytest arguments]

What passes once on an idle machine may still lean on luck: this is where that shows.
"""

import argparse
import os
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests repeatedly while every core is kept busy.")
    parser.add_argument("--times", type=int, default=20)
    options, pytest_arguments = parser.parse_known_args()
    spin = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        for turn in range(1, options.times + 1):
            began = time.monotonic()
            status = subprocess.call([sys.executable, "-m", "pytest", "-q", *pytest_arguments])
            seconds = time.monotonic() - began
            print(f"repeat: run {turn} of {options.times}: status {status}, {seconds:.0f} s", flush=True)
            if status != 0:
                return status
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
