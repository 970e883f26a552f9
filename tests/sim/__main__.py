"""`python -m tests.sim --seeds 500`: many farms, and the seeds of those that broke a promise.

`--events 10000000` goes on until so many events have happened, `--jobs 2` on so many cores. With `--seed N`
one farm alone, and the end of its trace.
"""

import argparse
import os
import sys
import time
import traceback
from collections import deque

from tests.sim.farm import TAIL, Farm
from tests.sim.many import Tally, bundles, tallies


def main() -> int:
    """Run; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many farms (150 where no events are asked for)")
    parser.add_argument("--events", type=int, default=0, help="so many farms that so many events happen")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--most", type=int, default=0, help="stop after so many failures")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time; 0: one for each core")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    begin, whole = time.monotonic(), Tally()
    seeds = options.seeds if options.seeds is not None else 0 if options.events else 150
    for tally in tallies(options.jobs or os.cpu_count() or 1, bundles(options.first, seeds)):
        whole.add(tally)
        for _seed, text in tally.failed:
            print(text, flush=True)
        enough = options.events and whole.events >= options.events
        if enough or (options.most and len(whole.failed) >= options.most):
            break
    _report(whole, time.monotonic() - begin, options.first)
    return 1 if whole.failed else 0


def _report(whole: Tally, took_s: float, first: int) -> None:
    print(f"seeds       {whole.seeds:,}, from {first}")
    print(f"events      {whole.events:,} in {took_s:.1f} s: {whole.events / took_s:,.0f} each second")
    print(f"steps       {whole.steps:,} of the two cores: {whole.steps / took_s:,.0f} each second")
    print(f"accidents   {whole.injected.total():,}")
    for what, often in sorted(whole.injected.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {often:>9,} {what}")
    print(f"violations  {len(whole.failed)}")
    for seed, _text in whole.failed:
        print(f"  seed {seed}: python -m tests.sim --seed {seed}")


def _one(seed: int) -> int:
    lines: deque[str] = deque(maxlen=TAIL)
    farm = Farm(seed, lines)
    try:
        print(farm.run())
    except Exception:  # noqa: BLE001 - shown in full
        print("\n".join(lines))
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
