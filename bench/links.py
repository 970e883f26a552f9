"""`python -m bench links`: a farm's worth of slaves, simulated, on real TLS links to a real master.

steady         all linked, each with its Beats and Status, frames started and over at a given rate: CPU of the
               master, how late a sleeper in its loop wakes, and one in a loop of its own meanwhile
outage         the master is killed, and started again after a while: until the last slave is registered

Slaves are in processes of their own (bench/simslaves.py) and come back as real ones do. The master's CPU
of coming back is that of its process from when its loop began until all are back. Their frames went on
meanwhile, which costs the master what it always does: the figure without that has its steady CPU, times the
seconds since it was killed, taken off.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from bench import stall
from bench.simulated import Slaves, simulated
from bench.table import Row, machine, show
from bench.tls import free_port, joined
from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import LocalFarm, local_farm

#: All frames of a start are to be under way before anything is measured, and the first of them over.
_SETTLE_S = 10.0
#: Frames of a job that outlasts every bench.
_FRAMES = "1-1000000"


def main(arguments: list[str]) -> None:
    """Run this bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench links", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slaves", type=int, default=2000, help="slaves, of one slot each")
    parser.add_argument("--processes", type=int, default=1, help="processes that they are simulated in")
    parser.add_argument("--events", type=float, default=200.0, help="frames started or over, a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long is measured")
    parser.add_argument("--outage", type=float, default=10.0, help="seconds without a master; 0: none")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="drqueue-bench-") as folder:
        figures = trio.run(measure_links, folder, args)
    if args.json:
        print(json.dumps({"machine": machine(), **figures}, indent=2))
        return
    rows = [
        Row("frame events", lambda x: x["events_per_s"], "/s"),
        Row("master's CPU, of a core", lambda x: x["cpu_percent"], "%", 1),
        *_stalls("", "steady"),
        Row("slaves' CPU (simulated), of a core", lambda x: x["slaves_cpu_percent"], "%", 1),
    ]
    if args.outage:
        rows += [
            Row("back after the outage: half", lambda x: x["half_back_s"], "s", 1),
            Row("back after the outage: all", lambda x: x["back_s"], "s", 1),
            Row("master's CPU a slave that comes back", lambda x: x["back_cpu_ms"], "ms", 2),
            Row("the same without the frames' own work", lambda x: x["back_own_cpu_ms"], "ms", 2),
            *_stalls(", coming back", "coming back"),
            Row("slowest answer to a client, coming back", lambda x: x["answer_ms"], "ms"),
        ]
    show(f"{args.slaves} simulated slaves by TLS", [figures], rows)


def _stalls(when: str, key: str) -> list[Row]:
    return [
        Row(f"loop stalls, p99.9, master{when}", lambda x: x[key]["master"]["p999_ms"], "ms", 1),
        Row(f"loop stalls, p99.9, bare loop{when}", lambda x: x[key]["bare loop"]["p999_ms"], "ms", 1),
    ]


async def measure_links(folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Every figure of one master in a new folder."""
    env = {**os.environ, "DRQUEUE_LISTEN": f"127.0.0.1:{free_port()}"}
    async with local_farm(os.path.join(folder, "farm"), slaves=0, env=env) as (farm, client):
        doors = await joined(client, "slave", args.slaves)
        # From here on with a sleeper inside.
        await farm.master.end()
        watched = os.path.join(folder, "master.json")
        options = list(farm.master.argv[3:])
        farm.master.argv = [sys.executable, "-m", "bench.stall", watched, "master", *options]
        await farm.master.start()
        async with _bare_loop(folder) as bare, trio.open_nursery() as nursery:
            sleepers = _Sleepers(farm, watched, *bare)
            # One frame of each slave at a time, each with a start and an end.
            frame_s = 2 * args.slaves / args.events
            slaves: Slaves = await nursery.start(simulated, doors, args.processes, frame_s, 0.0)
            await slaves.until(args.slaves)
            argv = ("/bin/true",)
            await client.submit(JobSpec(name="links", layers=(LayerSpec(argv=argv, frames=_FRAMES),)))
            await trio.sleep(_SETTLE_S + args.slaves * 2 / args.events)
            result = await _steady(farm, sleepers, slaves, args)
            if args.outage:
                result |= await _outage(farm, client, sleepers, slaves, args)
                steady_s = result["cpu_percent"] / 100 * (args.outage + result["back_s"])
                result["back_own_cpu_ms"] = result["back_cpu_ms"] - steady_s / args.slaves * 1000
            nursery.cancel_scope.cancel()
    return result


@asynccontextmanager
async def _bare_loop(folder: str) -> AsyncIterator[tuple[int, str]]:
    """A sleeper in a loop of its own: pid, and the file that it writes."""
    path = os.path.join(folder, "bare.json")
    process = await trio.lowlevel.open_process([sys.executable, "-m", "bench.stall", path])
    try:
        yield process.pid, path
    finally:
        process.kill()


class _Sleepers:
    """Those in the master's loop and in the bare one."""

    def __init__(self, farm: LocalFarm, watched: str, bare_pid: int, bare: str) -> None:
        self._farm = farm
        self._watched = watched
        self._bare_pid = bare_pid
        self._bare = bare

    async def ask(self) -> dict[str, stall.Seen]:
        """What both saw since they were asked last."""
        return {
            "master": await stall.ask(self._farm.master.pid, self._watched),
            "bare loop": await stall.ask(self._bare_pid, self._bare),
        }


def _late(seen: dict[str, stall.Seen]) -> dict[str, dict[str, float]]:
    return {
        who: {
            "median_ms": one.late_ms(0.5),
            "p99_ms": one.late_ms(0.99),
            "p999_ms": one.late_ms(0.999),
            "max_ms": one.late_ms(1),
        }
        for who, one in seen.items()
    }


async def _steady(
    farm: LocalFarm, sleepers: _Sleepers, slaves: Slaves, args: argparse.Namespace
) -> dict[str, Any]:
    await sleepers.ask()
    cpu_s, events, slaves_cpu_s = _cpu_s(farm.master.pid), slaves.events, slaves.cpu_s
    start = time.perf_counter()
    await trio.sleep(args.seconds)
    took = time.perf_counter() - start
    figures = {
        "registered": slaves.registered,
        "events_per_s": (slaves.events - events) / took,
        "cpu_percent": (_cpu_s(farm.master.pid) - cpu_s) / took * 100,
        "slaves_cpu_percent": (slaves.cpu_s - slaves_cpu_s) / took * 100,
    }
    return {**figures, "steady": _late(await sleepers.ask())}


async def _outage(
    farm: LocalFarm, client: AsyncClient, sleepers: _Sleepers, slaves: Slaves, args: argparse.Namespace
) -> dict[str, Any]:
    await farm.master.end(signal.SIGKILL)
    await trio.sleep(args.outage)
    await farm.master.start()
    start = time.perf_counter()
    await slaves.until(args.slaves // 2)
    half_s = time.perf_counter() - start
    slowest_s = 0.0
    async with trio.open_nursery() as nursery:

        async def ask_often() -> None:
            nonlocal slowest_s
            while True:
                asked_at = time.perf_counter()
                await client.jobs()
                slowest_s = max(slowest_s, time.perf_counter() - asked_at)
                await trio.sleep(0.1)

        nursery.start_soon(ask_often)
        await slaves.until(args.slaves)
        nursery.cancel_scope.cancel()
    back_s = time.perf_counter() - start
    cpu_s = _cpu_s(farm.master.pid)
    seen = await sleepers.ask()
    return {
        "half_back_s": half_s,
        "back_s": back_s,
        "failed": slaves.failed,
        "back_cpu_ms": (cpu_s - seen["master"].start_cpu_s) / args.slaves * 1000,
        "answer_ms": slowest_s * 1000,
        "coming back": _late(seen),
    }


def _cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far, to the microsecond."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
