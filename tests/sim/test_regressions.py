"""What the simulator found, kept: the seeds that failed, and the same stories told by hand.

A seed means another farm once `faults` draws differently; the stories stay what they are.
"""

import pytest

from drqueue.proto.messages import JobVerb, Request, Submit, Submitted
from drqueue.proto.model import Exit, JobSpec, LayerSpec, RunOrder
from tests.sim.farm import Farm, Fate

#: 0, 807: a new range forgot on disk how often a running frame was retried. 40: a token was forgotten with
#: its job. 204: a machine that woke up started what had been given up.
SEEDS = (0, 40, 204, 807)


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_that_failed(seed: int) -> None:
    """They do no more."""
    Farm(seed).run()


class Quiet(Farm):
    """One machine, no accidents but those of the story; frames last as long as is said."""

    def __init__(self, seconds: float) -> None:
        super().__init__(0)
        self.seconds = seconds
        self.calm = True
        self.lease_s = 60.0
        del self.hosts[1:]
        self.start_master()
        self.hosts[0].start_daemon()

    def fate(self, order: RunOrder) -> Fate:
        """All frames are alike, and end well."""
        return Fate(self.seconds, 0, True)

    def asked(self, request: Request) -> Request | None:
        """The answer to a request."""
        answers: list[Request | None] = []
        self.ask(request, answers.append)
        self.until(self.now + 1.0)
        assert len(answers) == 1
        return answers[0]

    def outcomes(self) -> list[tuple[int, str]]:
        """Attempts at frame 1 of the first job, by number."""
        return [(row.attempt, row.outcome) for row in self.storage.attempts(0, 0, 1)]


def _job() -> JobSpec:
    return JobSpec(name="job", layers=(LayerSpec(argv=("render",)),))


def test_a_submission_tried_again_after_its_job_was_deleted_makes_no_second_one() -> None:
    """P1, over a restart of the master."""
    farm = Quiet(5.0)
    submit = Submit(rq=1, token="token-0001", spec=_job())
    first = farm.asked(submit)
    assert isinstance(first, Submitted)
    farm.asked(JobVerb(rq=2, job=first.job, verb="delete"))
    farm.until(farm.now + 20.0)
    assert not farm.storage.load().jobs
    assert farm.asked(submit) == Submitted(rq=1, job=first.job, again=True)
    farm.crash_master(away_s=1.0)
    farm.until(farm.now + 5.0)
    assert farm.asked(submit) == Submitted(rq=1, job=first.job, again=True)


def test_an_order_read_after_a_long_sleep_is_not_started() -> None:
    """P4: the master gave it up meanwhile, though the network is gone and nobody can say so."""
    farm = Quiet(300.0)
    host = farm.hosts[0]
    farm.until(30.0)
    host.sleeps_at_order = 10_000.0
    farm.submit(_job())
    farm.until(31.0)
    assert host.asleep
    farm.until(31.0 + 60.0 * 1.01 + 160.0)
    assert farm.outcomes() == [(1, "lost")]
    host.network = False
    host.wake()
    farm.until(farm.now + 5.0)
    assert not host.processes


def test_a_master_that_leaves_in_good_order_ends_no_frame() -> None:
    """P4, P5: it stays away longer than the lease, not than it granted; the slave's daemon is killed, too."""
    farm = Quiet(500.0)
    host = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job())
    farm.until(40.0)
    assert host.processes
    assert farm.master is not None
    farm.master.leave(400.0)
    farm.until(41.0)
    farm.wires[host.name].cut(None)
    host.network = False
    farm.start_master()
    farm.until(100.0)
    host.kill_daemon()
    host.start_daemon()
    farm.until(330.0)
    assert host.processes, "its lease was stretched"
    assert farm.outcomes() == [(1, "")], "and the master minds that"
    host.network = True
    farm.until(600.0)
    assert farm.outcomes() == [(1, "done")]


def test_a_lease_is_counted_from_the_masters_last_word_whatever_the_daemon_does() -> None:
    """P4: restarts of the slave's daemon stretch no lease."""
    farm = Quiet(500.0)
    host = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job())
    farm.until(40.0)
    farm.wires[host.name].cut((0.1, 0.1))
    host.network = False
    for seconds in (60.0, 80.0, 100.0, 120.0):
        farm.until(seconds)
        host.kill_daemon()
        host.start_daemon()
    farm.until(135.0)
    assert not host.processes
    assert farm.storage.load().live, "the master waits longer than the slave"
    host.network = True
    farm.until(160.0)
    assert farm.outcomes()[0] == (1, "lost")
    assert farm.storage.attempts(0, 0, 1)[0].reason == Exit(reason="lease").reason
