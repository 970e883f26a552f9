"""`python -m bench memory`: what finished frames cost a master, and how soon it is back with them.

resident       of a process with the master's core and database, before and after it dispatched the frames of
               one job to simulated slaves (they answer at once) and took their ends, in batches as a busy
               master does; and of a real master that was started on what that left
a frame        what a finished one adds to that process's memory, and to the database (its row, its attempt)
restart        a real master on that database, from its start to its first answer; its CPU with all imports
submit         of a job of 1,000,000 frames to that master, until it is acknowledged: durably noted
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import trio

from bench import table
from bench.farm import noop_job
from bench.procs import resident_mb, sample
from bench.table import Row
from drqueue.client.farm import local_farm
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Answer, Tell
from drqueue.master.core.events import ClientAsked, Event, SlaveLinked, SlaveSaid
from drqueue.master.core.turn import Policy
from drqueue.master.storage.statedir import DATABASE, open_state
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, Hello, Orders, Report
from drqueue.proto.messages import Submit, Submitted
from drqueue.proto.model import Exit, JobSpec, LayerSpec, MachineInfo, SlaveLimits
from drqueue.proto.roles import Who

SLAVES, CORES = 16, 64
#: Ends in one step.
BATCH = 256
_ADMIN = Who(name="admin", role="admin", peer="uid 0")
_NODE = Who(name="local", role="node", peer="uid 0")
_SUBMITS = 5


def main(arguments: list[str]) -> None:
    """Run this bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000, help="finished frames")
    parser.add_argument("--waiting", type=int, default=100_000, help="frames that wait in the same job")
    parser.add_argument("--order", default="forward", help="the layer's order; coarse scatters what is done")
    parser.add_argument("--restarts", type=int, default=3, help="starts of a master; the median is shown")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--fill", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.fill:
        print(json.dumps(_fill(args.fill, args.frames, args.waiting, args.order)))
        return
    with tempfile.TemporaryDirectory(prefix="drqueue-bench-") as folder:
        filled = _filled(folder, arguments)
        rounds = [{**filled, **trio.run(_restart, folder, args.frames)} for _ in range(args.restarts)]
    if args.json:
        print(json.dumps({"machine": table.machine(), "rounds": rounds, "median": table.medians(rounds)}))
    else:
        _show(rounds, args)


def _filled(folder: str, arguments: list[str]) -> dict[str, float]:
    """From a process of its own, so that its memory is that of nothing else."""
    print("finishing frames ...", file=sys.stderr, flush=True)
    argv = [sys.executable, "-m", "bench", "memory", *arguments, "--fill", folder]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _fill(folder: str, frames: int, waiting: int, order: str) -> dict[str, float]:
    """Finish so many frames of a job, by the core and the storage that a master in `folder` has."""
    opened = open_state(folder)
    storage = opened.storage
    wall = time.time()
    core = Core(Policy(farm=opened.farm, epoch=opened.epoch), storage.load(), 0.0, wall)
    dice = random.Random(1)
    running: list[tuple[int, AttemptKey]] = []
    path = os.path.join(folder, DATABASE)

    def step(*events: Event) -> list[Any]:
        outcome = core.step(events, time.time() - wall)
        storage.commit(outcome.save)
        for effect in outcome.do:
            if isinstance(effect, Tell) and isinstance(effect.message, Orders):
                running.extend((effect.link, order.key) for order in effect.message.run)
        return [effect.message for effect in outcome.do if isinstance(effect, Answer)]

    step(*(SlaveLinked(number, _hello(number), (), _NODE) for number in range(SLAVES)))
    layer = LayerSpec(argv=("/bin/true",), frames=f"1-{frames + waiting}", order=order)
    (answer,) = step(
        ClientAsked(1, Submit(rq=1, token="bench-0001", spec=JobSpec(name="bench", layers=(layer,))), _ADMIN)
    )
    assert isinstance(answer, Submitted), answer
    before_mb, before_bytes = resident_mb(os.getpid()), _size(path)
    start = time.perf_counter()
    done = 0
    while done < frames:
        by_slave: dict[int, list[Exited]] = {}
        for _ in range(min(BATCH, frames - done, len(running))):
            at = dice.randrange(len(running))
            running[at], running[-1] = running[-1], running[at]
            link, key = running.pop()
            now = time.time()
            ended = Exit(code=0, started_at=now - 0.004, ended_at=now, cpu_s=0.00123, peak_mb=1.375)
            by_slave.setdefault(link, []).append(Exited(key, ended))
            done += 1
        step(*(SlaveSaid(link, Report(exited=tuple(exits))) for link, exits in by_slave.items()))
    took = time.perf_counter() - start
    after_mb = resident_mb(os.getpid())
    opened.close()
    return {
        "frames_per_s": frames / took,
        "before_mb": before_mb,
        "after_mb": after_mb,
        "memory_bytes": (after_mb - before_mb) * 2**20 / frames,
        "disk_bytes": (_size(path) - before_bytes) / frames,
    }


def _hello(number: int) -> Hello:
    return Hello(
        identity=f"slave-{number}",
        name=f"slave-{number}",
        fingerprint=f"machine-{number}",
        machine=MachineInfo(hostname=f"node{number}", os="linux"),
        limits=SlaveLimits(),
        cores=CORES,
        memory_mb=64_000,
    )


def _size(path: str) -> int:
    return sum(Path(name).stat().st_size for name in (path, f"{path}-wal") if os.path.exists(name))


async def _restart(folder: str, frames: int) -> dict[str, float]:
    """A real master on what was left, without slaves."""
    start = time.perf_counter()
    async with local_farm(folder, slaves=0) as (farm, client):
        (job,) = [job for job in await client.jobs() if job.name == "bench"]
        restart_s = time.perf_counter() - start
        if job.counts.done != frames:
            raise RuntimeError(f"{job.counts.done} of {frames} frames are done")
        master = sample(farm)["master"]
        took = []
        for _ in range(_SUBMITS):
            begun = time.perf_counter()
            number = await client.submit(noop_job("million", "1-1000000"))
            took.append((time.perf_counter() - begun) * 1000)
            await client.delete(number)
        return {
            "restart_s": restart_s,
            "restart_cpu_s": master.cpu_s,
            "restarted_mb": master.resident_mb,
            "submit_ms": median(took),
        }


def _show(rounds: list[dict[str, float]], args: argparse.Namespace) -> None:
    table.show(
        f"{args.frames:,} frames finished, {args.waiting:,} wait, in one live job ({args.order})",
        rounds,
        [
            Row("resident, before any frame", lambda x: x["before_mb"], "MB", 1),
            Row("resident, after them", lambda x: x["after_mb"], "MB", 1),
            Row("resident, a master restarted on them", lambda x: x["restarted_mb"], "MB", 1),
            Row("a finished frame, in memory", lambda x: x["memory_bytes"], "bytes", 1),
            Row("a finished frame, on disk", lambda x: x["disk_bytes"], "bytes", 1),
            Row("restart, to the first answer", lambda x: x["restart_s"], "s", 2),
            Row("restart, CPU", lambda x: x["restart_cpu_s"], "s", 2),
            Row("submit of 1,000,000 frames", lambda x: x["submit_ms"], "ms", 1),
            Row("frames through core and database", lambda x: x["frames_per_s"], "/s"),
        ],
    )
