"""What kind of farm a seed is: its size, its jobs' habits, and which accidents may happen there at all.

Each farm has a mixture of its own: one in which everything happens seldom gets deep into anything.
"""

from random import Random

from drqueue.proto.model import OnUnreachable

CHOICES_OF_SECONDS = ((0.05, 2.0, 5.0, 20.0, 60.0, 400.0), (0.05, 1.0, 3.0), (20.0, 60.0, 400.0), (5.0, 30.0))


class Mix:
    """Drawn once for each farm."""

    def __init__(self, rng: Random) -> None:
        self.hosts = rng.choice((1, 2, 2, 3, 3, 4, 5, 8))
        #: Outages outlast leases, and frames last longer still.
        self.long = rng.random() < 0.25
        self.length_s = rng.uniform(600.0, 1200.0) if self.long else rng.uniform(60.0, 400.0)
        self.jobs = rng.randint(1, 5)
        self.whims = rng.randint(0, 12)
        self.accidents = rng.choice((0, 2, 5, 10, 20))
        #: The share of the kinds of accidents that happen here at all.
        self.share = rng.choice((0.1, 0.3, 0.6, 1.0))
        self.seconds = (60.0, 900.0, 900.0) if self.long else rng.choice(CHOICES_OF_SECONDS)
        self.leases = rng.choice(((0,), (0, 90), (0, 40, 90, 300)))
        self.unreachable: tuple[OnUnreachable, ...] = rng.choice(
            (("lease",), ("lease", "lease", "lease", "hold", "requeue-fast"), ("lease", "hold"))
        )
        self.chunks = rng.choice(((1,), (1, 1, 1, 3), (2, 4)))
        self.retries = rng.choice(((0, 1, 3), (3,), (0,)))
        self.frames = rng.choice((("1", "1-4", "1-8", "1-9x2", "5-1", "1-3,7,9"), ("1-12",), ("1",)))
        self.depends = rng.choice((0.0, 0.3, 0.7))
        #: How much there is of a licence that some jobs take; 0: nobody knows it.
        self.licences = rng.choice((0, 0, 1, 3))
        self.timed = rng.choice((0.0, 0.0, 0.2))
