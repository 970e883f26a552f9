"""`python -m tests.faults --level nightly [F1 F3]`: faults on real processes, and how the promises held.

Each fault's tests run in a process of their own, one after another; all of them where none is named. The
table says how often each was injected, how many violations were found, how long that took and with which
seed it is done again; what failed is told below it. 1 where there were any.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import levels

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@dataclass
class Row:
    """One line of the table."""

    fault: str
    count: int
    violations: int
    seconds: float
    seed: str


def files() -> dict[str, list[Path]]:
    """The files of each fault; some lie beside what they are about."""
    found: dict[str, list[Path]] = {}
    for path in sorted(FOLDER.parent.rglob("test_f[0-9][0-9]_*.py")):
        found.setdefault(f"F{int(path.name[6:8])}", []).append(path)
    return dict(sorted(found.items(), key=lambda item: int(item[0][1:])))


def inject(fault: str, paths: list[Path], level: str, seed: str) -> tuple[Row, str]:
    """Run one fault's tests; its row, and what is to be told of failures."""
    env = {**os.environ, levels.VARIABLE: f"{level}:{seed}" if seed else level}
    words = ["-q", "-s", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", "--tb=short"]
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *map(str, paths)],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    said = ended.stdout
    counts = re.findall(rf"^\.*{fault}(?:-\w+)?: (\d+) times$", said, re.MULTILINE)
    seeds = re.findall(rf"{levels.VARIABLE}=\w+:(\w+)", said)
    violations = sum(int(number) for number in re.findall(r"(\d+) violations", said))
    if ended.returncode and not violations:
        violations = 1
    row = Row(
        fault, sum(map(int, counts)), violations, time.monotonic() - began, " ".join(dict.fromkeys(seeds))
    )
    return row, said if ended.returncode else ""


def main() -> int:
    """Inject what was asked for; 1 with violations."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    known = files()
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--level", choices=levels.LEVELS, default=levels.LEVELS[0])
    parser.add_argument("--seed", default="", help="draw the same again")
    options = parser.parse_args()
    unknown = [fault for fault in options.faults if fault not in known]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}: there are {', '.join(known)}")
    print(f"{'fault':<6} {'count':>8} {'violations':>11} {'seconds':>8}  seed", flush=True)
    failures = []
    for fault in options.faults or known:
        row, told = inject(fault, known[fault], options.level, options.seed)
        print(
            f"{row.fault:<6} {row.count:>8} {row.violations:>11} {row.seconds:>8.0f}  {row.seed}", flush=True
        )
        if told:
            failures.append(told)
    for told in failures:
        print(f"\n{told}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
