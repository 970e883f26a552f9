"""`python -m bench farm`: the machine's limit and the farm's figures, side by side in one run.

raw            spawns of /bin/true a second: C vfork, two parents with eight children each (bench/spawn.c)
end to end     5,000 one-frame no-op attempts a second: submitted, run, durably noted, seen done by a client
ratio          the second by the first, both measured again in every round
--tls          the same again, with slaves and client linked by TLS in place of the Unix socket
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import trio

from bench import table
from bench.farm import SLAVES, SLOTS, measure_farm, measure_tls
from bench.spawn import SpawnError, measure_spawn_rate
from bench.table import Row


def main(arguments: list[str]) -> None:
    """Run this bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench farm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=5000, help="no-op frames of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is shown")
    parser.add_argument("--latencies", type=int, default=50, help="one-frame jobs of a round")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling of a round")
    parser.add_argument("--tls", action="store_true", help="measure a farm linked by TLS, too")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    rounds: list[dict[str, Any]] = []
    # Removed after the last round: ext4 creates files slowly for half a minute after many were removed.
    with tempfile.TemporaryDirectory(prefix="drqueue-bench-") as folder:
        try:
            for number in range(args.rounds):
                print(f"round {number + 1} of {args.rounds} ...", file=sys.stderr, flush=True)
                rounds.append(_round(os.path.join(folder, str(number)), args))
        except SpawnError as error:
            sys.exit(f"bench: {error}")
    result = {"machine": _machine(), "rounds": rounds, "median": table.medians(rounds)}
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _show(rounds, args.tls)


def _round(state_dir: str, args: argparse.Namespace) -> dict[str, Any]:
    before = measure_spawn_rate(args.frames)
    figures = trio.run(measure_farm, state_dir, args.frames, args.latencies, args.idle)
    after = measure_spawn_rate(args.frames)
    raw = (before + after) / 2
    result = {"raw_per_s": raw, **figures, "ratio": float(str(figures["frames_per_s"])) / raw}
    if args.tls:
        closed = trio.run(measure_tls, f"{state_dir}-tls", args.frames, args.latencies)
        raw = (after + measure_spawn_rate(args.frames)) / 2
        result["tls"] = {"raw_per_s": raw, **closed, "ratio": float(str(closed["frames_per_s"])) / raw}
    return result


def _machine() -> dict[str, object]:
    return {**table.machine(), "slaves": SLAVES, "slots": SLOTS}


def _show(rounds: list[dict[str, Any]], tls: bool) -> None:
    kinds = (("master", "master"), ("slaves", "a slave"), ("keepers", "a keeper"))
    table.show(
        f"{SLAVES} slaves x {SLOTS} slots, median of {len(rounds)}",
        rounds,
        [
            Row("raw spawn rate (C vfork)", lambda x: x["raw_per_s"], "/s"),
            *_rate(f"end to end, {rounds[0]['frames']:,.0f} frames", ""),
            *(_rate("end to end, TLS", ", TLS", "tls") if tls else ()),
            Row("submit of 1,000,000 frames", _finder("submit_million_ms", "median"), "ms", 1),
            *(
                Row(f"resident, {name}, {when}", _finder(when, kind, "resident_mb"), "MB", 1)
                for when in ("idle before any frame", "idle after frames")
                for kind, name in kinds
            ),
            *(Row(f"idle CPU, {name}", _finder("idle_cpu_percent", kind), "%", 2) for kind, name in kinds),
        ],
    )


def _rate(title: str, suffix: str, *at: str) -> list[Row]:
    """The figures of one way to link, which stand at these keys."""
    return [
        Row(title, _finder(*at, "frames_per_s"), "/s"),
        Row(f"ratio to raw{suffix}", _finder(*at, "ratio"), "", 2),
        *(
            Row(f"CPU a frame, {kind}{suffix}", _finder(*at, "cpu_us_per_frame", kind), "us")
            for kind in ("master", "slaves", "keepers")
        ),
        Row(f"one frame, submit to done, median{suffix}", _finder(*at, "latency_ms", "median"), "ms", 1),
        Row(f"one frame, submit to done, p99{suffix}", _finder(*at, "latency_ms", "p99"), "ms", 1),
    ]


def _finder(*keys: str) -> Callable[[Any], float]:
    """What finds a round's figure by these keys."""

    def find(figures: Any) -> float:
        for key in keys:
            figures = figures[key]
        return float(figures)

    return find
