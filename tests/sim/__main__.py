"""`python -m tests.sim --seeds 500`: many farms, and the seeds of those that broke a promise.

With `--seed N` one farm alone, and the end of its trace.
"""

import argparse
import sys
import time
import traceback

from tests.sim.farm import TAIL, Farm


def main() -> int:
    """Run; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=150, help="how many farms")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--most", type=int, default=0, help="stop after so many failures")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    failed: list[int] = []
    seed = options.first - 1
    steps, begin = 0, time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        farm = Farm(seed)
        try:
            farm.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other seeds count too
            failed.append(seed)
            print(f"seed {seed} at {farm.now:.3f}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        steps += farm.steps
        if options.most and len(failed) >= options.most:
            break
    took = time.monotonic() - begin
    rate = steps / took
    ran = seed + 1 - options.first
    print(f"{ran} seeds, {steps} steps in {took:.1f} s: {rate:.0f} steps/s; failed: {failed}")
    return 1 if failed else 0


def _one(seed: int) -> int:
    farm = Farm(seed, keep_trace=True)
    try:
        print(farm.run())
    except Exception:  # noqa: BLE001 - shown in full
        assert farm.lines is not None
        print("\n".join(farm.lines[-TAIL:]))
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
