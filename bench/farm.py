"""The farm's own figures, through the shipped path: real daemons, a durable master, real processes."""

import time
from statistics import median, quantiles

import trio

from bench.procs import Sample, sample
from bench.tls_farm import tls_farm
from drqueue.client import AsyncClient, JobSpec, LayerSpec
from drqueue.client.farm import LocalFarm, local_farm

SLAVES = 2
SLOTS = 8
NOOP = ("/bin/true",)


def noop_job(name: str, frames: str, argv: tuple[str, ...] = NOOP) -> JobSpec:
    """A job whose frames do nothing, as argv, without a shell."""
    return JobSpec(name=name, layers=(LayerSpec(argv=argv, frames=frames, cwd="/"),))


async def measure_tls(state_dir: str, frames: int, latencies: int) -> dict[str, object]:
    """Rate, CPU and latency of such a farm whose slaves and client are linked by TLS."""
    async with tls_farm(state_dir, slaves=SLAVES, cores=SLOTS) as (farm, client):
        await _rate(client, farm, 200)
        return await _rate(client, farm, frames) | await _latency(client, latencies)


async def measure_farm(state_dir: str, frames: int, latencies: int, idle_s: float) -> dict[str, object]:
    """Every figure of one farm of 2 slaves x 8 slots in a new folder; `bench.rate` names them."""
    async with local_farm(state_dir, slaves=SLAVES, cores=SLOTS) as (farm, client):
        await farm.ready(client)
        fresh = sample(farm)
        result: dict[str, object] = {}
        result["idle before any frame"] = _memory(fresh)
        await _rate(client, farm, 200)
        result |= await _rate(client, farm, frames)
        result |= await _latency(client, latencies)
        result |= await _idle(farm, idle_s)
        result |= await _million(client)
        return result


async def _rate(client: AsyncClient, farm: LocalFarm, frames: int) -> dict[str, object]:
    before = sample(farm)
    start = time.perf_counter()
    job = await client.submit(noop_job("rate", f"1-{frames}"))
    (view,) = await client.wait([job])
    took = time.perf_counter() - start
    after = sample(farm)
    if view.counts.done != frames:
        raise RuntimeError(f"{view.counts.done} of {frames} frames are done")
    return {
        "frames": frames,
        "frames_per_s": frames / took,
        "cpu_us_per_frame": {kind: (after[kind].cpu_s - before[kind].cpu_s) / frames * 1e6 for kind in after},
    }


async def _latency(client: AsyncClient, times: int) -> dict[str, object]:
    took = []
    for number in range(times):
        # The farm is idle again, and so is whoever watches it.
        await trio.sleep(0.3)
        start = time.perf_counter()
        job = await client.submit(noop_job(f"latency-{number}", "1"))
        await client.wait([job])
        took.append((time.perf_counter() - start) * 1000)
    return {
        "latency_ms": {
            "median": median(took),
            "p99": quantiles(took, n=100, method="inclusive")[98],
            "min": min(took),
            "max": max(took),
            "runs": times,
        }
    }


async def _idle(farm: LocalFarm, seconds: float) -> dict[str, object]:
    before, start = sample(farm), time.perf_counter()
    await trio.sleep(seconds)
    after, took = sample(farm), time.perf_counter() - start
    return {
        "idle after frames": _memory(after),
        "idle_cpu_percent": {
            kind: (after[kind].cpu_s - before[kind].cpu_s) / took * 100 / max(1, after[kind].processes)
            for kind in after
        },
        "idle_seconds": took,
    }


def _memory(samples: dict[str, Sample]) -> dict[str, dict[str, float]]:
    return {
        kind: {
            "resident_mb": one.resident_mb / max(1, one.processes),
            "anonymous_mb": one.anonymous_mb / max(1, one.processes),
            "processes": one.processes,
        }
        for kind, one in samples.items()
    }


async def _million(client: AsyncClient) -> dict[str, object]:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        job = await client.submit(noop_job("million", "1-1000000", ("/bin/sleep", "600")))
        took.append((time.perf_counter() - start) * 1000)
        await client.delete(job)
    return {"submit_million_ms": {"median": median(took), "max": max(took)}}
