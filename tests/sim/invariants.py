"""The master's invariants after every event, at a price that many events can pay.

What a step touched is looked at after that step: its jobs, and all that is counted over the farm. Jobs that
it did not touch are looked at with every FULL_EACH-th step: a bug is met near where it is made.
"""

from drqueue.master.core import invariants, invariants_depends
from drqueue.master.core.core import Core
from drqueue.master.core.effects import Effect, Publish
from drqueue.master.core.invariants import check
from drqueue.master.core.places_invariants import check_places
from drqueue.master.core.records import AnyRecord
from drqueue.master.core.state import Job
from drqueue.outcome import Outcome

FULL_EACH = 8


class Watch:
    """Looks at one life of a master's core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._steps = 0

    def look(self, outcome: Outcome[AnyRecord, Effect]) -> None:
        """After a step, of which this came; AssertionError where something does not hold."""
        self._steps += 1
        if self._steps % FULL_EACH == 0:
            check(self._core.state)
            return
        state = self._core.state
        touched: set[int] = set()
        for effect in outcome.do:
            if isinstance(effect, Publish):
                touched |= effect.jobs
                touched.update(frame.job for frame in effect.frames)
        for number in touched:
            job = state.jobs.get(number)
            if job is not None:
                self._job(job)
        for key, attempt in state.attempts.items():
            assert attempt.slave.live.get(key) is attempt, f"attempt {key}: its slave does not know it"
            assert state.jobs.get(key.job) is attempt.layer.job, f"attempt {key}: of a job that is gone"
        check_places(state)

    def look_at_all(self) -> None:
        """Everything at once."""
        check(self._core.state)

    def _job(self, job: Job) -> None:
        state = self._core.state
        invariants._check_job(state, job)
        for layer in job.layers:
            invariants_depends._check_held(state, job, layer)
