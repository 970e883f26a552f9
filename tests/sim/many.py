"""Many farms, one after the other or several at a time, and what came of them all."""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from multiprocessing import get_context

from tests.sim.farm import Farm

#: Seeds that a core is given at a time.
AT_ONCE = 10


@dataclass
class Tally:
    """What came of some seeds."""

    seeds: int = 0
    events: int = 0
    steps: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """These, too."""
        self.seeds += other.seeds
        self.events += other.events
        self.steps += other.steps
        self.injected += other.injected
        self.failed += other.failed


def live(seeds: list[int]) -> Tally:
    """Live through some farms."""
    tally = Tally()
    for seed in seeds:
        farm = Farm(seed)
        try:
            farm.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other seeds count too
            text = f"seed {seed} at {farm.now:.3f}: {type(error).__name__}: {str(error)[:300]}"
            tally.failed.append((seed, text))
        tally.add(Tally(1, farm.events, farm.steps, farm.injected))
    return tally


def bundles(first: int, seeds: int) -> Iterator[list[int]]:
    """Seeds from the first on; `seeds` 0: without end."""
    numbers = iter(range(first, first + seeds)) if seeds else count(first)
    while bundle := list(islice(numbers, AT_ONCE)):
        yield bundle


def tallies(jobs: int, some: Iterator[list[int]]) -> Iterator[Tally]:
    """What came of one bundle after the other, so many at a time."""
    if jobs == 1:
        yield from map(live, some)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        under_way: deque[Future[Tally]] = deque()
        try:
            for bundle in some:
                under_way.append(pool.submit(live, bundle))
                if len(under_way) > 2 * jobs:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
