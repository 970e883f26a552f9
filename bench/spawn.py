"""The raw limit that the farm is measured against: processes a second that this machine can start at all."""

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


class SpawnError(Exception):
    """The raw rate cannot be measured here; its text is one sentence."""


def measure_spawn_rate(total: int = 5000) -> float:
    """Spawns of /bin/true per second, from two parents with eight children each. Raises SpawnError."""
    program = _compile(HERE / "spawn.c", HERE / "out" / "spawn")
    ended = subprocess.run([program, str(total)], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SpawnError(f"the raw spawn rate could not be measured: {ended.stderr.strip()}")
    return float(ended.stdout)


def _compile(source: Path, program: Path) -> Path:
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise SpawnError(
            "the raw spawn rate needs a C compiler: install one (Debian, Ubuntu: apt install gcc libc6-dev)"
        )
    program.parent.mkdir(exist_ok=True)
    # Built beside and moved: two benches at a time never run half a program.
    built = program.with_suffix(f".{os.getpid()}")
    ended = subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-o", built, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["no reason given"])[0]
        raise SpawnError(f"{source.name} could not be compiled by {compiler}: {reason}")
    built.replace(program)
    return program
