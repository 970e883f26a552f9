"""What the simulator found, kept: the seeds that failed, and the same stories told by hand.

A seed means another farm once `faults` draws differently; the stories stay what they are.
"""

from typing import Any

import pytest

from drqueue.master.storage import StorageFull
from drqueue.proto.link_messages import Message, Orders, Report
from drqueue.proto.messages import FrameVerb, JobVerb, Request, Submit, Submitted
from drqueue.proto.model import Exit, JobSpec, LayerSpec, RunOrder
from tests.sim.farm import Farm, Fate
from tests.sim.hosts import Host

#: 204: a machine that woke up started what had been given up. 807: a new range forgot on disk how often a
#: running frame was retried. 2394: of two masters one took an exit of the other's attempt for its own.
SEEDS = (204, 807, 2394)


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds_that_failed(seed: int) -> None:
    """They do no more."""
    Farm(seed).run()


class Quiet(Farm):
    """One machine, no accidents but those of the story; frames last as long as is said."""

    def __init__(self, seconds: float, hosts: int = 1) -> None:
        super().__init__(0)
        self.seconds = seconds
        self.calm = True
        self.lease_s = 60.0
        self.hosts = [Host(self, number) for number in range(hosts)]
        for host in self.hosts:
            host.rate, host.cores = 1.0, 2
        self.start_master()
        for host in self.hosts:
            host.start_daemon()

    def fate(self, order: RunOrder) -> Fate:
        """All frames are alike, and end well."""
        return Fate(self.seconds, 0, True)

    def running(self) -> list[str]:
        """Where processes run."""
        return [host.name for host in self.hosts for _ in host.processes]

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


def _job(frames: str = "1", **fields: Any) -> JobSpec:
    return JobSpec(name="job", layers=(LayerSpec(argv=("render",), frames=frames),), **fields)


def _take_off(farm: Farm, host: Host) -> None:
    host.network = False
    if host.name in farm.wires:
        farm.wires[host.name].cut(None)


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


def test_f06_words_that_come_later_and_later_make_no_frame_run_twice() -> None:
    """P4: each word of the master takes longer than the one before, so it never seems silent; then the other
    direction is cut. Leases count from what the master heard, not from when its words are read."""
    farm = Quiet(5000.0, hosts=2)
    farm.until(20.0)
    farm.submit(_job())
    farm.until(40.0)
    (name,) = farm.running()
    host = farm.hosts[int(name[1:])]
    host.down.grow_slower(1.5, 300.0)
    farm.until(300.0)
    host.up.clog()
    for at in range(310, 1000, 10):
        farm.until(float(at))
        assert len(farm.running()) <= 1
    assert farm.running() == [f"s{1 - int(name[1:])}"], "and its lease ended"


def test_f06_messages_that_are_lost_doubled_and_overtaken_do_no_harm() -> None:
    """P2, P3: whoever notices starts over; all frames are done once."""
    farm = Quiet(3.0)
    host = farm.hosts[0]
    for at in range(10):
        farm.submit(_job())
        host.up.mischief = host.down.mischief = 0.5
        farm.until(20.0 * at + 15.0)
        host.up.mend()
        host.down.mend()
        farm.wires[host.name].cut((0.1, 0.1))
        farm.until(20.0 * at + 20.0)
    farm.until(400.0)
    assert farm.oracle.unsettled() == ""
    assert farm.master is not None
    farm.site.book.final(farm.master.core.state)


def test_p5_a_frame_that_ends_long_before_its_daemon_is_back_is_done() -> None:
    """Its keeper, too, is gone by then."""
    farm = Quiet(30.0)
    host = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job(lease_s=300.0))
    farm.until(25.0)
    host.kill_daemon()
    farm.until(55.0 + 70.0)
    assert host.keeper is not None
    assert not host.keeper.alive
    host.start_daemon()
    farm.until(180.0)
    assert farm.outcomes() == [(1, "done")]


def test_f13_a_lease_ends_under_a_keeper_that_hangs() -> None:
    """P4: it is killed, and its frame by whoever looks after that now."""
    farm = Quiet(5000.0)
    host = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job())
    farm.until(40.0)
    assert host.keeper is not None
    host.keeper.hang()
    host.network = False
    farm.wires[host.name].cut((0.1, 0.1))
    farm.until(40.0 + 60.0 + 90.0)
    assert not host.processes
    assert farm.outcomes() == [(1, "")], "the master waits longer"


def test_f16_a_copy_of_a_folder_is_another_slave() -> None:
    """P4: on the same machine and on another one; the frame of the original runs on."""
    farm = Quiet(100.0)
    original = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job())
    farm.until(30.0)
    original.kill_daemon()
    for number, fingerprint in ((1, original.folder.fingerprint), (2, "machine-2")):
        copy = Host(farm, number)
        copy.folder = original.folder.copied(number, fingerprint)
        farm.hosts.append(copy)
        copy.start_daemon()
    farm.until(45.0)
    assert farm.running() == ["s0"]
    original.start_daemon()
    farm.until(200.0)
    assert farm.outcomes() == [(1, "done")]


def test_f16_what_began_after_a_backup_is_not_run_twice() -> None:
    """P4: the backup knows nothing of it, and its slave is out of reach."""
    farm = Quiet(150.0, hosts=2)
    for host in farm.hosts:
        _take_off(farm, host)
    farm.submit(_job())
    farm.until(20.0)
    backup = farm.site.backup()
    for host in farm.hosts:
        host.network = True
    farm.until(50.0)
    (name,) = farm.running()
    host = farm.hosts[int(name[1:])]
    _take_off(farm, host)
    farm.crash_master(away_s=5.0)
    farm.site.restore(backup)
    for at in range(60, 230, 10):
        farm.until(float(at))
        assert farm.running() in ([name], [])
    host.network = True
    farm.until(1000.0)
    assert farm.oracle.unsettled() == ""


def test_f09_nothing_is_acknowledged_while_the_disk_is_full() -> None:
    """P1, P8: a kill at that time loses nothing that anybody was told of."""
    farm = Quiet(5.0)
    farm.until(20.0)
    farm.storage.refuse = StorageFull("no space left on device")
    farm.submit(_job())
    farm.until(60.0)
    assert not farm.jobs
    farm.crash_master(away_s=1.0)
    farm.until(70.0)
    assert farm.master is None, "it has no room to start, either"
    farm.storage.refuse = None
    farm.until(120.0)
    assert farm.jobs == [0]
    assert farm.outcomes() == [(1, "done")]


def test_f06_orders_that_come_again_start_nothing() -> None:
    """P3: the frame is done, noted and forgotten, and then its order is read once more."""
    farm = Quiet(3.0)
    farm.until(20.0)
    end = farm.wires["s0"].a
    hear, orders = end.on_message, list[Message]()

    def tapped(message: Message) -> None:
        if isinstance(message, Orders) and message.run:
            orders.append(message)
        hear(message)

    end.on_message = tapped
    farm.submit(_job())
    farm.until(30.0)
    assert farm.outcomes() == [(1, "done")]
    end.on_message(orders[0])
    farm.until(60.0)
    assert not farm.running()
    assert farm.outcomes() == [(1, "done")]


def test_f06_a_report_that_is_lost_is_told_again() -> None:
    """P2: the next one shows that one is missing."""
    farm = Quiet(3.0)
    farm.until(20.0)
    end = farm.wires["s0"].b
    hear, lost = end.on_message, list[Message]()

    def leaky(message: Message) -> None:
        if isinstance(message, Report) and message.exited and not lost:
            lost.append(message)
        else:
            hear(message)

    end.on_message = leaky
    farm.submit(_job())
    farm.until(30.0)
    assert lost
    assert farm.outcomes() == [(1, "")]
    farm.submit(_job())
    farm.until(60.0)
    assert farm.oracle.unsettled() == ""


def test_f05_a_frame_is_held_where_that_was_asked_for() -> None:
    """P4: its slave is away for ten leases, and back with it."""
    farm = Quiet(900.0, hosts=2)
    farm.until(20.0)
    farm.submit(_job(on_unreachable="hold"))
    farm.until(40.0)
    (name,) = farm.running()
    host = farm.hosts[int(name[1:])]
    _take_off(farm, host)
    for at in range(50, 700, 50):
        farm.until(float(at))
        assert farm.running() == [name]
    host.network = True
    farm.until(1000.0)
    assert farm.outcomes() == [(1, "done")]


def test_f05_a_stop_that_was_lost_with_its_link_is_said_again() -> None:
    """What a user killed does not run on."""
    farm = Quiet(900.0)
    host = farm.hosts[0]
    farm.until(20.0)
    farm.submit(_job())
    farm.until(40.0)
    host.down.clog()
    farm.asked(FrameVerb(rq=1, job=0, frames="1", verb="kill"))
    farm.wires[host.name].cut((0.1, 0.1))
    host.down.mend()
    farm.until(70.0)
    assert farm.outcomes()[0] != (1, "")
