"""The farm in the simulator: many seeds, one promise after the other. `python -m tests.sim` runs more."""

import pytest

from tests.sim.farm import Farm
from tests.sim.faults import ACCIDENTS

SEEDS = 120
SHARES = 20

#: What the accidents are there for, and the words of a trace that tell it.
WORDS = {
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
    "a keeper hangs": "'keeper hangs'",
    "a copy of a folder has an identity of its own": "'folder copied'",
    "a disk is cloned": "'disk cloned'",
    "two masters of one epoch are told apart": "another master had epoch",
    "an older master is refused": "was seen already",
    "a backup is restored": "'backup restored'",
    "the master's disk is full": '"master\'s disk full"',
    "networks are clogged": "'swizzle'",
    "a limit is kept": "'licence'",
}


class Seen:
    """A trace of which only is kept which of WORDS were in it."""

    def __init__(self, wanted: set[str]) -> None:
        self._wanted = {what: WORDS[what] for what in wanted}
        self.found: set[str] = set()

    def append(self, line: str, /) -> None:
        """The next line."""
        found = [what for what, word in self._wanted.items() if word in line]
        for what in found:
            del self._wanted[what]
            self.found.add(what)


class Lived:
    """The seeds that were lived through, whichever test wanted them first, and what they reached."""

    def __init__(self) -> None:
        self._lived: set[int] = set()
        self.reached: set[str] = set()
        self.injected: set[str] = set()

    def live(self, seed: int) -> None:
        """Once."""
        if seed not in self._lived:
            self._lived.add(seed)
            seen = Seen(WORDS.keys() - self.reached)
            farm = Farm(seed, seen)
            farm.run()
            self.reached |= seen.found
            self.injected |= farm.injected.keys()


@pytest.fixture(scope="module")
def lived() -> Lived:
    return Lived()


@pytest.mark.parametrize("share", range(SHARES))
def test_no_accident_breaks_a_promise(lived: Lived, share: int) -> None:
    """Invariants after every step, truth at the end, convergence after the last accident."""
    for seed in range(share, SEEDS, SHARES):
        try:
            lived.live(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed} (python -m tests.sim --seed {seed}): {error}") from error


@pytest.mark.parametrize("seed", range(1000, 1006))
def test_i16_the_same_seed_is_the_same_farm(seed: int) -> None:
    """Every event, record and effect, to the byte: else no failure could be looked into."""
    first, second = Farm(seed), Farm(seed)
    assert first.run() == second.run()
    assert first.steps == second.steps
    assert first.injected == second.injected


def test_another_seed_is_another_farm() -> None:
    """The digest depends on what happens."""
    assert Farm(1000).run() != Farm(1001).run()


def test_seeds_reach_what_they_are_there_for(lived: Lived) -> None:
    """The accidents happen, and the states that are hard to reach are reached: no oracle sleeps."""
    for seed in range(SEEDS):
        lived.live(seed)
        if len(lived.reached) == len(WORDS):
            break
    assert lived.reached == set(WORDS), f"never seen: {set(WORDS) - lived.reached}"
    assert len(lived.injected) >= len(set(ACCIDENTS)), f"only these accidents happen: {lived.injected}"
