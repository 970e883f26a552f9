"""`python -m bench soak`: a farm at work for an hour, and what grows meanwhile.

A real master, durable as shipped; slaves, simulated, on real TLS links that they lose now and then and dial
again; jobs that come as others end, and finished ones that are deleted. Every few seconds a new client links,
looks and goes, and the master's resident memory, open files, threads, log of the database (-wal) and loop lag
are read. A straight line is laid through what each was after the first sixth of the time (least squares): its
rise from there to the end is what the farm's work added. At the end every frame has to be done, each by one
attempt. Exits with 1 where a limit is passed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import trio
from msgspec import Struct, structs

from bench.procs import resident_mb
from bench.simulated import Slaves, simulated
from bench.table import Row, machine, show
from bench.tls import free_port, joined
from drqueue.client import AsyncClient, JobSpec, LayerSpec, connect
from drqueue.client.farm import LocalFarm, local_farm
from drqueue.proto.messages import Farm

_LOOK_S: Final = 10.0
#: Frames of a job, jobs that are there to be worked on at once, finished ones that stay.
_FRAMES: Final = 1000
_LIVE: Final = 8
_STAY: Final = 20
#: Share of the time that is not looked at: caches fill, pools of memory find their size.
_WARM_UP: Final = 1 / 6
#: After the time is over, what still runs has so many times a frame's time to end.
_PATIENCE: Final = 20


class Look(Struct, frozen=True):
    """What was seen at one time (seconds since the start)."""

    at_s: float
    resident_mb: float
    files: int
    threads: int
    wal_mb: float
    lag_ms: float
    linked: int


class Limit(NamedTuple):
    """What all the work may add to one of them, at most."""

    name: str
    get: Callable[[Look], float]
    unit: str
    most: float


LIMITS: Final = (
    Limit("resident memory", lambda look: look.resident_mb, "MB", 4.0),
    Limit("open files, but for links", lambda look: look.files - look.linked, "", 2.0),
    Limit("threads", lambda look: look.threads, "", 1.0),
    Limit("log of the database", lambda look: look.wal_mb, "MB", 2.0),
)


def main(arguments: list[str]) -> None:
    """Run this bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slaves", type=int, default=500, help="slaves, of one slot each")
    parser.add_argument("--frames", type=int, default=100_000, help="frames in all")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long that is to take")
    parser.add_argument("--cut", type=float, default=600.0, help="seconds that a link lasts on average")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="drqueue-soak-") as folder:
        result = trio.run(_Soak(folder, args).run)
    if args.json:
        print(json.dumps({"machine": machine(), **result}, indent=2))
    else:
        _show(args, result)
    if result["violations"]:
        sys.exit("soak: " + "; ".join(result["violations"]))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through these points (x, y) with the least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


def judge(looks: Sequence[Look]) -> tuple[dict[str, float], list[str]]:
    """By how much each rose, and a sentence for each that rose too much."""
    seen = [look for look in looks if look.at_s >= looks[-1].at_s * _WARM_UP]
    rises, violations = {}, []
    for limit in LIMITS:
        rise = slope([(look.at_s, limit.get(look)) for look in seen]) * (seen[-1].at_s - seen[0].at_s)
        rises[limit.name] = rise
        if rise > limit.most:
            unit = f" {limit.unit}".rstrip()
            violations.append(f"{limit.name}: {rise:.2f}{unit} more at the end ({limit.most:g} allowed)")
    return rises, violations


class _Soak:
    def __init__(self, folder: str, args: argparse.Namespace) -> None:
        self._folder = folder
        self._args = args
        self._looks: list[Look] = []
        self._began = 0.0
        self._left = args.frames
        self._live: list[int] = []
        self._stay: list[int] = []
        self._done = 0

    async def run(self) -> dict[str, Any]:
        """The whole time; every figure."""
        args = self._args
        frame_s = args.seconds * args.slaves / args.frames
        env = {**os.environ, "DRQUEUE_LISTEN": f"127.0.0.1:{free_port()}"}
        async with local_farm(os.path.join(self._folder, "farm"), slaves=0, env=env) as (farm, client):
            doors = await joined(client, "slave", args.slaves)
            async with trio.open_nursery() as nursery:
                slaves: Slaves = await nursery.start(simulated, doors, 1, frame_s, args.cut)
                await slaves.until(args.slaves)
                self._began = time.perf_counter()
                with trio.move_on_after(args.seconds + _PATIENCE * frame_s) as limit:
                    while True:
                        await self._keep_busy(client)
                        if not self._left and not self._live:
                            break
                        await self._look(farm)
                        await trio.sleep(_LOOK_S)
                nursery.cancel_scope.cancel()
            took_s = time.perf_counter() - self._began
        rises, violations = judge(self._looks)
        if limit.cancelled_caught:
            violations.append(f"{args.frames - self._done} frames were not done in time")
        # A start and an end of each: told more often, something ran twice.
        if slaves.events != 2 * args.frames:
            violations.append(f"{args.frames} frames had {slaves.events} starts and ends")
        return {
            "seconds": took_s,
            "frames": self._done,
            "starts_and_ends": slaves.events,
            "rises": rises,
            "failed": slaves.failed,
            "first": structs.asdict(self._looks[0]),
            "last": structs.asdict(self._looks[-1]),
            "most": {limit.name: max(map(limit.get, self._looks)) for limit in LIMITS},
            "lag_ms": max(look.lag_ms for look in self._looks),
            "violations": violations,
        }

    async def _keep_busy(self, client: AsyncClient) -> None:
        """Submit what there is room for, delete what is over."""
        over = {job.id for job in await client.jobs(all=True) if job.state == "FINISHED"}
        for job in [job for job in self._live if job in over]:
            _view, layers = await client.job(job)
            self._done += sum(layer.counts.done for layer in layers)
            self._live.remove(job)
            self._stay.append(job)
        while len(self._stay) > _STAY:
            await client.delete(self._stay.pop(0))
        while self._left and len(self._live) < _LIVE:
            frames = min(_FRAMES, self._left)
            self._left -= frames
            layer = LayerSpec(argv=("/bin/true",), frames=f"1-{frames}")
            self._live.append(await client.submit(JobSpec(name=f"soak {self._left}", layers=(layer,))))

    async def _look(self, farm: LocalFarm) -> None:
        """What the master looks like now, from outside and to a client of its own link."""
        async with connect(farm.address) as visitor:
            info = await visitor.farm_info()
            await visitor.slaves()
        look = _seen(farm, time.perf_counter() - self._began, info)
        self._looks.append(look)
        if len(self._looks) % 30 == 1:
            print(
                f"{look.at_s:,.0f} s: {self._done:,} frames, {look.resident_mb:.1f} MB, {look.files} files",
                file=sys.stderr,
                flush=True,
            )


def _seen(farm: LocalFarm, at_s: float, info: Farm) -> Look:
    pid = farm.master.pid
    wal = Path(farm.master.state_dir, "master.db-wal")
    status = Path(f"/proc/{pid}/status").read_text()
    return Look(
        at_s=at_s,
        resident_mb=resident_mb(pid),
        files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status.split("Threads:")[1].split()[0]),
        wal_mb=wal.stat().st_size / 1e6 if wal.exists() else 0.0,
        lag_ms=info.lag.most_ms if info.lag else 0.0,
        linked=info.slaves_linked,
    )


def _show(args: argparse.Namespace, result: dict[str, Any]) -> None:
    rows = [
        Row("time", lambda x: x["seconds"], "s"),
        Row("frames done", lambda x: x["frames"], ""),
        Row("starts and ends of attempts", lambda x: x["starts_and_ends"], ""),
        *[
            Row(f"{limit.name}, rise", lambda x, name=limit.name: x["rises"][name], limit.unit, 2)  # type: ignore[misc]
            for limit in LIMITS
        ],
        *[
            Row(f"{limit.name}, most", lambda x, name=limit.name: x["most"][name], limit.unit, 1)  # type: ignore[misc]
            for limit in LIMITS
        ],
        Row("loop lag, longest", lambda x: x["lag_ms"], "ms", 1),
    ]
    show(f"{args.slaves} simulated slaves at work", [result], rows)
