"""The farm in the simulator: many seeds, one promise after the other. `python -m tests.sim` runs more."""

import pytest

from tests.sim.farm import Farm

SEEDS = 150
SHARES = 15


@pytest.mark.parametrize("share", range(SHARES))
def test_no_accident_breaks_a_promise(share: int) -> None:
    """Invariants after every step, truth at the end, convergence after the last accident."""
    for seed in range(share, SEEDS, SHARES):
        farm = Farm(seed)
        try:
            farm.run()
        except Exception as error:
            raise AssertionError(f"seed {seed} (python -m tests.sim --seed {seed}): {error}") from error


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_the_same_seed_is_the_same_farm(seed: int) -> None:
    """Every event, record and effect, to the byte: else no failure could be looked into."""
    first, second = Farm(seed), Farm(seed)
    assert first.run() == second.run()
    assert first.steps == second.steps


def test_another_seed_is_another_farm() -> None:
    """The digest depends on what happens."""
    assert Farm(1000).run() != Farm(1001).run()


def test_seeds_reach_what_they_are_there_for() -> None:
    """The accidents happen, and the states that are hard to reach are reached: no oracle sleeps."""
    seen: set[str] = set()
    words = {
        "a master is restarted": "'master starts', 2",
        "a slave's daemon is restarted": "'slave dies'",
        "a machine sleeps": "'sleep'",
        "a machine is switched off under its frames": "'powered off'",
        "a keeper dies": "'keeper dies'",
        "an attempt is adopted without a keeper": "keeper-died",
        "a lease ends at the master": "was silent too long",
        "a lease ends at the slave": "the master was not heard for",
        "an operator declares a slave dead": "was declared dead",
        "a stale process is stopped": "'stale'",
        "an attempt is superseded": "'superseded'",
        "a frame fails for good": "state='FAILED'",
        "an attempt that was sent ahead is taken back": "taken back",
        "a submission is tried again": "again=True, note",
        "an exit is told a second time": "SayHello(link=2, held=(Held",
        "frames are cancelled": "outcome='cancelled'",
        "a grant": "Grant(lease_s",
        "outputs are missing": "missing-output",
    }
    for seed in range(SEEDS):
        farm = Farm(seed, keep_trace=True)
        farm.run()
        assert farm.lines is not None
        text = "\n".join(farm.lines)
        seen |= {what for what, word in words.items() if word in text}
        if len(seen) == len(words):
            return
    assert seen == set(words), f"never seen: {set(words) - seen}"
