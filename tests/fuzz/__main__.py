"""`python -m tests.fuzz --seconds 60`: damaged inputs for everything that reads bytes, and what they break.

So many seconds for each target, or the --runs of the test suite. Guided by coverage where atheris is
installed, else by where inputs fail, from a --seed that repeats a run. What is found goes to
tests/fuzz/corpus, and the test suite replays it.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
from pathlib import Path
from types import FunctionType

from tests.fuzz import engine
from tests.fuzz.targets import TARGETS

#: Bytes of address space beyond those at the start: what asks for more has found something.
ROOM = 2 << 30


def main() -> int:
    """Run; 1 with findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each target (10)")
    parser.add_argument("--runs", type=int, default=0, help="so many instead; 1: as many as the tests do")
    parser.add_argument("--target", choices=sorted(TARGETS), help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris, though it is there")
    parser.add_argument("--corpus", type=Path, default=engine.CORPUS, help="where findings go")
    options = parser.parse_args()
    guided = not options.plain and not options.runs and importlib.util.find_spec("atheris") is not None
    chosen = [options.target] if options.target else list(TARGETS)
    if guided and options.target:
        _instrument()
        engine.fuzz_with_atheris(TARGETS[options.target], options.seed, options.seconds, options.corpus)
    print("with atheris" if guided else f"with seeded mutations of its own, seed {options.seed}", flush=True)
    if not guided:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + ROOM, hard))
    failed = False
    for name in chosen:
        target = TARGETS[name]
        if guided:
            # It ends its process, and knows one target.
            words = [
                f"--seconds={options.seconds}",
                f"--target={name}",
                f"--seed={options.seed}",
                f"--corpus={options.corpus}",
            ]
            command = [sys.executable, "-m", "tests.fuzz", *words]
            ended = subprocess.run(command, check=False, stderr=subprocess.PIPE)
            failed = failed or ended.returncode != 0
            if ended.returncode not in (0, 1):
                print(
                    f"{name} ended with {ended.returncode}\n{ended.stderr.decode(errors='replace')[-2000:]}"
                )
        else:
            runs = target.runs if options.runs == 1 else options.runs
            tally = engine.fuzz(target, options.seed, runs=runs, seconds=0 if runs else options.seconds)
            engine.report(target, tally, options.corpus)
            failed = failed or bool(tally.findings)
        sys.stdout.flush()
    return 1 if failed else 0


def _instrument() -> None:
    """Have all functions of ours that are loaded tell atheris where they have been."""
    import atheris

    for name, module in list(sys.modules.items()):
        if name.startswith("drqueue."):
            found = [value for value in vars(module).values() if getattr(value, "__module__", "") == name]
            found += [value for kind in found if isinstance(kind, type) for value in vars(kind).values()]
            for value in found:
                if isinstance(value, FunctionType):
                    atheris.instrument_func(value)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
