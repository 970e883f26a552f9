"""`python -m bench`: the machine's limit and the farm's figures, side by side in one run.

raw            spawns of /bin/true a second: C vfork, two parents with eight children each (bench/spawn.c)
end to end     5,000 one-frame no-op attempts a second: submitted, run, durably noted, seen done by a client
ratio          the second by the first, both measured again in every round
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from statistics import median
from typing import Any

import trio
from rich.console import Console
from rich.table import Table

from bench.farm import SLAVES, SLOTS, measure_farm
from bench.spawn import SpawnError, measure_spawn_rate


def main() -> None:
    """Run the bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--frames", type=int, default=5000, help="no-op frames of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is shown")
    parser.add_argument("--latencies", type=int, default=50, help="one-frame jobs of a round")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling of a round")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    # Removed after the last round: ext4 creates files slowly for half a minute after many were removed.
    with tempfile.TemporaryDirectory(prefix="drqueue-bench-") as folder:
        try:
            for number in range(args.rounds):
                print(f"round {number + 1} of {args.rounds} ...", file=sys.stderr, flush=True)
                rounds.append(_round(os.path.join(folder, str(number)), args))
        except SpawnError as error:
            sys.exit(f"bench: {error}")
    result = {"machine": _machine(), "rounds": rounds, "median": _median(rounds)}
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)


def _round(state_dir: str, args: argparse.Namespace) -> dict[str, Any]:
    before = measure_spawn_rate(args.frames)
    figures = trio.run(measure_farm, state_dir, args.frames, args.latencies, args.idle)
    raw = (before + measure_spawn_rate(args.frames)) / 2
    return {"raw_per_s": raw, **figures, "ratio": float(str(figures["frames_per_s"])) / raw}


def _machine() -> dict[str, object]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "slaves": SLAVES,
        "slots": SLOTS,
    }


def _median(rounds: list[Any]) -> Any:
    """The rounds' figures, number by number."""
    first = rounds[0]
    if isinstance(first, dict):
        return {key: _median([one[key] for one in rounds]) for key in first}
    return median(rounds)


def _show(result: dict[str, Any]) -> None:
    figures = result["median"]
    rounds = result["rounds"]
    machine = result["machine"]
    table = Table(
        title=f"DrQueue on {machine['cpus']} CPUs, Python {machine['python']}: "
        f"{SLAVES} slaves x {SLOTS} slots, median of {len(rounds)}"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("range", justify="right")

    def row(name: str, get: Any, unit: str, digits: int = 0) -> None:
        values = [get(one) for one in rounds]
        table.add_row(
            name,
            f"{get(figures):,.{digits}f} {unit}".rstrip(),
            f"{min(values):,.{digits}f} - {max(values):,.{digits}f}",
        )

    row("raw spawn rate (C vfork)", lambda x: x["raw_per_s"], "/s")
    row(f"end to end, {figures['frames']:,.0f} frames", lambda x: x["frames_per_s"], "/s")
    row("ratio", lambda x: x["ratio"], "", 2)
    for kind in ("master", "slaves", "keepers"):
        row(f"CPU a frame, {kind}", lambda x, kind=kind: x["cpu_us_per_frame"][kind], "us")
    row("one frame, submit to done, median", lambda x: x["latency_ms"]["median"], "ms", 1)
    row("one frame, submit to done, p99", lambda x: x["latency_ms"]["p99"], "ms", 1)
    row("submit of 1,000,000 frames", lambda x: x["submit_million_ms"]["median"], "ms", 1)
    for when in ("idle before any frame", "idle after frames"):
        for kind, name in (("master", "master"), ("slaves", "a slave"), ("keepers", "a keeper")):
            row(
                f"resident, {name}, {when}",
                lambda x, kind=kind, when=when: x[when][kind]["resident_mb"],
                "MB",
                1,
            )
    for kind, name in (("master", "master"), ("slaves", "a slave"), ("keepers", "a keeper")):
        row(f"idle CPU, {name}", lambda x, kind=kind: x["idle_cpu_percent"][kind], "%", 2)
    Console().print(table)


if __name__ == "__main__":
    main()
