"""`python -m bench core`: what the scheduler itself costs, without disks, sockets and processes.

A pair is one placement and its completion, through `Core.step` as the master calls it, with all the rows and
messages that it makes. The farm is full and stays full: whatever ends makes room for what waits. Jobs are of
different users, projects, pools, priorities, needs, limits and dependencies, and all frames of all jobs wait.

pairs          a second, at 5,000 slaves x 16 cores, 1,000 jobs, 1,000,000 frames
curves         the same as jobs grow, and as slaves grow; each point beside a plain loop of the same run,
               which says how fast the machine was then; and byte codes a pair, which are counted (growth is
               theirs, by the first point of the curve)
"""

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.table import machine
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Tell
from drqueue.master.core.events import ClientAsked, Event, SlaveLinked, SlaveSaid
from drqueue.master.core.records import Saved
from drqueue.master.core.turn import Policy
from drqueue.master.daemon import GC_THRESHOLD
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Hello, Orders, Report
from drqueue.proto.messages import Submit
from drqueue.proto.model import (
    Depend,
    Exit,
    Gpu,
    JobSpec,
    LayerSpec,
    MachineInfo,
    Needs,
    Offers,
    Share,
    SlaveLimits,
)
from drqueue.proto.roles import Who
from drqueue.proto.sharing_messages import PutLimit, PutShare

JOBS, SLAVES, FRAMES = 1_000, 5_000, 1_000_000
CORES, MEMORY_MB = 16, 64_000
POOLS = ("Default", "film", "ads", "night")
PRIORITIES = (500, 500, 500, 600, 400)
LIMITS = {"nuke": 2_000, "houdini": 900, "arnold": 6_000}
#: (cores, memory, GPUs, tags, limits), as often as they stand here.
NEEDS: tuple[tuple[int, int, int, tuple[str, ...], dict[str, int]], ...] = (
    (1, 2_000, 0, (), {}),
    (1, 4_000, 0, (), {"nuke": 1}),
    (2, 4_000, 0, (), {}),
    (2, 8_000, 0, ("fast",), {}),
    (4, 8_000, 0, (), {"arnold": 1}),
    (4, 16_000, 0, (), {}),
    (8, 24_000, 0, (), {"houdini": 1}),
    (16, 48_000, 0, (), {}),
    (4, 8_000, 1, (), {}),
    (2, 2_000, 0, (), {}),
)
#: Ends that reach the core in one step, as a busy master gathers them.
BATCH = 64
ADMIN = Who(name="admin", role="admin", peer="uid 0")
NODE = Who(name="local", role="node", peer="uid 0")
WALL = 1_700_000_000.0


class Farm:
    """A core that is kept full; its slaves are numbers of links."""

    def __init__(self, slaves: int, jobs: int, frames: int, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.core = Core(Policy(farm="bench"), Saved(), 0.0, WALL)
        self.now = 0.0
        #: (link, attempt) of all that run.
        self.running: list[tuple[int, AttemptKey]] = []
        self.placed = 0
        #: CPU seconds in the core.
        self.took_s = 0.0
        for name, amount in LIMITS.items():
            self.ask(PutLimit(rq=0, name=name, amount=max(4, amount * slaves // SLAVES)))
        self.ask(PutShare(rq=0, share=Share(of="project", name="p1", weight=3)))
        self.ask(PutShare(rq=0, share=Share(of="project", name="p2", pool="film", minimum=50)))
        self.step([SlaveLinked(n, self._hello(n), (), NODE) for n in range(slaves)])
        each = max(1, frames // jobs)
        for number in range(jobs):
            token = f"token-{number:06}"
            self.ask(Submit(rq=0, token=token, spec=self._job(number, each)))

    def _hello(self, number: int) -> Hello:
        gpus = (0, 1) if number % 8 == 0 else ()
        return Hello(
            identity=f"slave-{number}",
            name=f"slave-{number}",
            fingerprint=f"machine-{number}",
            machine=MachineInfo(
                hostname=f"node{number}",
                os="linux",
                arch="x86_64",
                gpus=tuple(Gpu(index, "RTX", 24_000) for index in gpus),
            ),
            limits=SlaveLimits(pools=("Default", POOLS[number % len(POOLS)])),
            cores=CORES,
            memory_mb=MEMORY_MB,
            offers=Offers(gpus=gpus, tags=("fast",) if number % 3 == 0 else ()),
        )

    def _job(self, number: int, frames: int) -> JobSpec:
        cores, memory_mb, gpus, tags, limits = NEEDS[number % len(NEEDS)]
        layer = LayerSpec(
            name="render",
            argv=("/bin/true",),
            frames=f"1-{frames}",
            needs=Needs(cores=cores, memory_mb=memory_mb, gpus=gpus, tags=tags),
            limits=limits,
        )
        comp = LayerSpec(name="comp", argv=("/bin/true",), frames="1-10", after=("render",))
        return JobSpec(
            name=f"job {number}",
            owner=f"user{number % 97}",
            project=f"p{number % 13}",
            pool=POOLS[number // 7 % len(POOLS)],
            priority=PRIORITIES[number // 11 % len(PRIORITIES)],
            layers=(layer, comp) if number % 5 == 0 else (layer,),
            # Every tenth waits for one that does not end in the bench.
            depends=(Depend(number - 1),) if number % 10 == 9 else (),
        )

    def ask(self, request: Any) -> None:
        """A client asks."""
        self.step([ClientAsked(1, request, ADMIN)])

    def step(self, events: list[Event]) -> None:
        """One step of the core; what was ordered runs."""
        start = time.process_time()
        outcome = self.core.step(events, self.now)
        self.took_s += time.process_time() - start
        for effect in outcome.do:
            if isinstance(effect, Tell) and isinstance(effect.message, Orders):
                for run in effect.message.run:
                    self.placed += 1
                    self.running.append((effect.link, run.key))

    def end_some(self, many: int) -> None:
        """So many of those that run end, in one step."""
        running, choose = self.running, self.random.randrange
        events: list[Event] = []
        for _ in range(min(many, len(running))):
            at = choose(len(running))
            running[at], running[-1] = running[-1], running[at]
            link, key = running.pop()
            ended = Exit(code=0, started_at=WALL + self.now, ended_at=WALL + self.now + 60, cpu_s=50)
            events.append(SlaveSaid(link, Report(exited=(Exited(key, ended),))))
        # As fast as frames of a minute end.
        self.now += 60.0 * len(events) / max(1, len(events) + len(running))
        self.step(events)


def measure(slaves: int, jobs: int, frames: int, pairs: int, batch: int = BATCH) -> dict[str, float]:
    """Microseconds a pair of one farm, and of the plain loop beside it."""
    gc.collect()
    # As the master sets it.
    gc.set_threshold(*GC_THRESHOLD)
    start = time.perf_counter()
    farm = Farm(slaves, jobs, frames)
    built = time.perf_counter() - start
    filled = farm.placed
    # What was built stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    half_pairs, already_s = 0, farm.took_s
    while half_pairs < 2 * pairs:
        before, ended = farm.placed, min(batch, len(farm.running))
        farm.end_some(batch)
        half_pairs += ended + farm.placed - before
        if farm.placed == before:
            break
    gc.unfreeze()
    return {
        "slaves": slaves,
        "jobs": jobs,
        "build_s": built,
        "filled": filled,
        "running": len(farm.running),
        "pairs": half_pairs / 2,
        "us_per_pair": (farm.took_s - already_s) / max(1, half_pairs) * 2e6,
        "plain_us": _plain_us(),
        "codes_per_pair": _codes(farm, batch),
    }


def _codes(farm: Farm, batch: int) -> float:
    """Byte codes that a pair takes, counted over some steps: no other work of the machine changes that."""
    counted = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal counted
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            counted += 1
        return trace

    before, ended = farm.placed, 0
    for _ in range(max(2, 512 // batch)):
        ended += min(batch, len(farm.running))
        sys.settrace(trace)
        farm.end_some(batch)
        sys.settrace(None)
    return counted / max(1, farm.placed - before + ended) * 2


def _plain_us() -> float:
    """CPU microseconds of a fixed piece of plain Python: how fast the machine is just now."""
    start = time.process_time()
    table: dict[int, int] = {}
    for number in range(200_000):
        table[number & 1023] = number
    return (time.process_time() - start) / 200_000 * 1e6


def curves(pairs: int) -> Iterator[dict[str, float]]:
    """Points of both curves, the reference farm first."""
    yield measure(SLAVES, JOBS, FRAMES, pairs * 4)
    for jobs in (10, 100, 1_000, 10_000):
        yield {"curve": 1.0, **measure(SLAVES, jobs, FRAMES, pairs)}
    for slaves in (10, 100, 1_000, 5_000):
        yield {"curve": 2.0, **measure(slaves, JOBS, FRAMES, pairs)}


def main(arguments: list[str]) -> None:
    """Run this bench; prints tables, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20_000, help="pairs of a point (default 20000)")
    parser.add_argument("--only", action="store_true", help="the reference farm alone, without curves")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"ends in one step (default {BATCH})")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    if args.only:
        points = [measure(SLAVES, JOBS, FRAMES, args.pairs, args.batch)]
    else:
        points = []
        for point in curves(args.pairs):
            points.append(point)
            print(f"{point['jobs']:,.0f} jobs, {point['slaves']:,.0f} slaves ...", file=sys.stderr)
    if args.json:
        print(json.dumps({"machine": machine(), "points": points}, indent=2))
        return
    _show(points)


def _show(points: list[dict[str, float]]) -> None:
    here = machine()
    table = Table(title=f"DrQueue's core on one of {here['cpus']} CPUs, Python {here['python']}")
    for column in (
        "slaves",
        "jobs",
        "running",
        "us a pair",
        "pairs/s",
        "plain, us",
        "codes a pair",
        "growth",
    ):
        table.add_column(column, justify="right")
    first: dict[float, float] = {}
    for point in points:
        codes = point["codes_per_pair"]
        base = first.setdefault(point.get("curve", 0.0), codes)
        table.add_row(
            f"{point['slaves']:,.0f}",
            f"{point['jobs']:,.0f}",
            f"{point['running']:,.0f}",
            f"{point['us_per_pair']:.1f}",
            f"{1e6 / point['us_per_pair']:,.0f}",
            f"{point['plain_us']:.3f}",
            f"{codes:,.0f}",
            f"{codes / base:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
