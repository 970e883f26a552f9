"""What becomes of frames that fail, are killed, requeued or called finished; stop, hard stop and rerun."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import drqueue
from tests.binding.conftest import Gated
from tests.binding.farm import (
    C,
    a_farm,
    a_job,
    clear,
    eventually,
    frame,
    fresh,
    sent,
    statuses,
    until_finished,
    until_frames,
    until_runs,
)

pytestmark = pytest.mark.slow
WAITING, ASSIGNED = drqueue.FS_WAITING, drqueue.FS_ASSIGNED
ERROR, FINISHED = drqueue.FS_ERROR, drqueue.FS_FINISHED


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with a_farm(tmp_path_factory.mktemp("frames") / "farm", cores=2):
        yield


@pytest.fixture(autouse=True)
def _cleared(farm: None) -> Iterator[None]:
    yield
    clear()


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[], int]:
    """How many runs wrote a line: see `counted`."""
    return lambda: len((tmp_path / "runs").read_text().splitlines())


@pytest.fixture
def counted(tmp_path: Path) -> Callable[[str], str]:
    """A command that writes a line first."""
    return lambda cmd: f"echo run >> {tmp_path}/runs; {cmd}"


# -- how often a frame is requeued --------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_command_that_always_kills_itself_is_run_four_times(
    sign: signal.Signals, counted: Callable[[str], str], runs: Callable[[], int]
) -> None:
    job = until_finished(sent(a_job(counted(f"kill -{int(sign)} $$"))))
    (info,) = job.request_frame_list(C)
    assert (info.status, info.requeued, info.exitcode) == (ERROR, drqueue.MAX_REQUEUES, 0)
    assert (job.ffailed, job.fdone, job.fleft, job.nprocs) == (1, 0, 0, 0)
    assert runs() == 4


def test_kills_are_counted_1_2_3_and_the_fourth_is_an_error(gated: Gated) -> None:
    job, _ = gated()
    for requeued in (0, 1, 2, 3):
        until_runs(job, 1, requeued)
        assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
    until_frames(job, [ERROR])
    assert frame(job, 1).requeued == 3
    assert fresh(job).status == drqueue.JOBSTATUS_FINISHED


def test_a_task_is_killed_at_its_slave_as_at_the_master(gated: Gated) -> None:
    job, _ = gated()
    for requeued in (0, 1, 2, 3):
        info = until_runs(job, 1, requeued)
        computer = drqueue.computer()
        assert drqueue.request_comp_xfer(info.icomp, computer, C) == 1
        assert drqueue.request_slave_killtask(computer.hwinfo.name, info.itask, C) == 1
    until_frames(job, [ERROR])
    assert frame(job, 1).requeued == 3


def test_a_slot_that_is_not_in_use_kills_nothing(gated: Gated) -> None:
    """The original's slave ended itself."""
    job, gates = gated()
    info = until_runs(job, 1)
    for slot in (info.itask + 1, 7, 65535):
        assert drqueue.request_slave_killtask("slave001", slot, C) == 0
    gates.end(1)
    assert until_finished(job).fdone == 1
    assert len(drqueue.request_computer_list(C)) == 2


def test_without_autorequeue_the_first_kill_is_an_error(
    counted: Callable[[str], str], runs: Callable[[], int]
) -> None:
    job = until_finished(sent(a_job(counted("kill -9 $$"), autoRequeue=0)))
    assert fresh(job).autoRequeue == 0
    assert [(info.status, info.requeued) for info in job.request_frame_list(C)] == [(ERROR, 0)]
    assert runs() == 1


def test_a_script_that_kills_its_shell_is_requeued(
    counted: Callable[[str], str], runs: Callable[[], int]
) -> None:
    """How generated scripts have always asked for another try."""
    script = "sh -c 'kill -INT $PPID; exit 1'; exit 0"
    job = until_finished(sent(a_job(counted(script))))
    assert statuses(job) == [ERROR]
    assert runs() == 4


def test_a_failure_is_a_failure_until_it_succeeds(tmp_path: Path, counted: Callable[[str], str]) -> None:
    """Unlike in the original, a non-zero exit is no success; it is shown, and so is how often it happened."""
    cmd = counted(f"test $(wc -l < {tmp_path}/runs) -ge 3 || exit 7")
    job = until_finished(sent(a_job(cmd)))
    assert [(i.status, i.requeued, i.exitcode) for i in job.request_frame_list(C)] == [(FINISHED, 2, 0)]
    job = until_finished(sent(a_job("exit 7")))
    assert [(i.status, i.requeued, i.exitcode) for i in job.request_frame_list(C)] == [(ERROR, 3, 7)]


def test_any_exit_code_may_be_a_success_as_it_was(
    counted: Callable[[str], str], runs: Callable[[], int]
) -> None:
    job = until_finished(sent(a_job(counted("exit 7"), success_exit_codes="any")))
    assert fresh(job).success_exit_codes == "any"
    (info,) = job.request_frame_list(C)
    assert (info.status, info.requeued, info.exitcode) == (FINISHED, 0, 7)
    assert (job.fdone, job.ffailed) == (1, 0)
    assert info.end_time >= info.start_time > 0
    assert runs() == 1


def test_a_signal_is_no_exit_code_whatever_counts_as_success(
    counted: Callable[[str], str], runs: Callable[[], int]
) -> None:
    job = until_finished(sent(a_job(counted("kill -9 $$"), success_exit_codes="any")))
    assert [(i.status, i.requeued, i.exitcode) for i in job.request_frame_list(C)] == [(ERROR, 3, 0)]
    assert runs() == 4


def test_hup_has_its_usual_effect(counted: Callable[[str], str], runs: Callable[[], int]) -> None:
    """The original's slave made commands ignore it; nothing does so here."""
    job = until_finished(sent(a_job(counted("kill -HUP $$; exit 0"), autoRequeue=0)))
    assert statuses(job) == [ERROR]
    assert runs() == 1


def test_reset_requeued_gives_a_frame_its_tries_back(gated: Gated) -> None:
    job, gates = gated()
    for requeued in (0, 1, 2):
        until_runs(job, 1, requeued)
        assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
    until_runs(job, 1, 3)
    assert drqueue.request_job_frame_reset_requeued(job.id, 1, C) == 1
    for requeued in (0, 1, 2):
        until_runs(job, 1, requeued)
        assert drqueue.request_job_frame_kill(job.id, 1, C) == 1
    until_runs(job, 1, 3)
    gates.end(1)
    assert until_finished(job).fdone == 1


# -- stop, hard stop, rerun ---------------------------------------------------------------------------------


def test_stop_lets_running_frames_end_and_starts_none(gated: Gated) -> None:
    job, gates = gated(6)
    until_frames(job, [ASSIGNED] * 4 + [WAITING] * 2)
    assert job.request_stop(C) == 1
    assert fresh(job).status == drqueue.JOBSTATUS_STOPPED
    gates.end_all()
    until_frames(job, [FINISHED] * 4 + [WAITING] * 2)
    assert fresh(job).status == drqueue.JOBSTATUS_STOPPED
    assert (job.fdone, job.fleft, job.nprocs) == (4, 2, 0)
    assert [info.requeued for info in job.request_frame_list(C)] == [0] * 6
    assert job.request_continue(C) == 1
    assert until_finished(job).fdone == 6


def test_a_job_stopped_after_its_last_frame_began_is_finished_by_it(gated: Gated) -> None:
    """The original's stayed Stopped for ever, with nothing left to do."""
    job, gates = gated(2)
    until_frames(job, [ASSIGNED] * 2)
    assert job.request_stop(C) == 1
    gates.end_all()
    assert until_finished(job).fdone == 2
    assert job.request_stop(C) == 1
    assert fresh(job).status == drqueue.JOBSTATUS_FINISHED


def test_hard_stop_kills_running_frames_and_sends_them_back(gated: Gated) -> None:
    job, _ = gated(6)
    until_frames(job, [ASSIGNED] * 4 + [WAITING] * 2)
    assert job.request_hard_stop(C) == 1
    until_frames(job, [WAITING] * 6)
    infos = job.request_frame_list(C)
    assert [info.requeued for info in infos] == [1, 1, 1, 1, 0, 0]
    assert [(info.start_time, info.end_time) for info in infos] == [(0, 0)] * 6
    assert fresh(job).status == drqueue.JOBSTATUS_STOPPED
    assert (job.nprocs, job.fleft) == (0, 6)


def test_a_hard_stop_costs_no_try(gated: Gated) -> None:
    """The original counted it: the fourth one put the frames in error."""
    job, gates = gated()
    for requeued in range(5):
        until_runs(job, 1, requeued)
        assert job.request_hard_stop(C) == 1
        until_frames(job, [WAITING])
        assert job.request_continue(C) == 1
    until_runs(job, 1, 5)
    gates.end(1)
    assert until_finished(job).fdone == 1


def test_rerun_while_running_kills_and_runs_all_again(gated: Gated) -> None:
    job, gates = gated(3)
    until_frames(job, [ASSIGNED] * 3)
    gates.end(1)
    until_frames(job, [FINISHED, ASSIGNED, ASSIGNED])
    pids = {task.pid for task in tasks()}
    assert job.request_rerun(C) == 1
    for number in (1, 2, 3):
        until_runs(job, number, 1)
    assert not pids & {task.pid for task in tasks()}
    gates.end_all()
    assert until_finished(job).fdone == 3
    assert [info.requeued for info in job.request_frame_list(C)] == [1] * 3


def tasks() -> list[drqueue.task]:
    """What runs anywhere."""
    slots = [each.status.get_task(slot) for each in drqueue.request_computer_list(C) for slot in range(32)]
    return [task for task in slots if task.used]


def test_rerun_leaves_a_stopped_job_stopped(gated: Gated) -> None:
    job, gates = gated(5)
    until_frames(job, [ASSIGNED] * 4 + [WAITING])
    assert job.request_stop(C) == 1
    gates.end_all()
    until_frames(job, [FINISHED] * 4 + [WAITING])
    assert job.request_rerun(C) == 1
    assert statuses(job) == [WAITING] * 5
    assert [info.requeued for info in job.request_frame_list(C)] == [1] * 5
    assert fresh(job).status == drqueue.JOBSTATUS_STOPPED


def test_rerun_gives_frames_in_error_another_chance(counted: Callable[[str], str], tmp_path: Path) -> None:
    cmd = counted(f"test -e {tmp_path}/mended || exit 1")
    job = until_finished(sent(a_job(cmd, autoRequeue=0)))
    assert statuses(job) == [ERROR]
    (tmp_path / "mended").touch()
    assert job.request_rerun(C) == 1
    eventually("it is done", lambda: fresh(job).fdone == 1)
    assert job.status == drqueue.JOBSTATUS_FINISHED


# -- verbs on one frame -------------------------------------------------------------------------------------


def test_frame_waiting_on_a_running_frame_runs_it_once_more(gated: Gated) -> None:
    """FF_REQUEUE stands until this run is over; the original never cleared it."""
    job, gates = gated()
    first = until_runs(job, 1)
    assert first.flags == 0
    assert drqueue.request_job_frame_waiting(job.id, 1, C) == 1
    assert frame(job, 1).flags == drqueue.FF_REQUEUE
    assert frame(job, 1).status == ASSIGNED
    gates.end(1)
    assert until_runs(job, 1, 1).flags == 0
    gates.end(1)
    until_finished(job)
    info = frame(job, 1)
    assert (info.status, info.requeued, info.flags) == (FINISHED, 1, 0)


def test_frame_waiting_revives_a_finished_job(gated: Gated) -> None:
    job, gates = gated(2)
    gates.end_all()
    until_finished(job)
    assert drqueue.request_job_frame_waiting(job.id, 2, C) == 1
    until_runs(job, 2, 1)
    assert fresh(job).status == drqueue.JOBSTATUS_ACTIVE
    assert statuses(job) == [FINISHED, ASSIGNED]
    gates.end(2)
    until_finished(job)


def test_frame_finish_of_a_waiting_frame_runs_it_never(counted: Callable[[str], str], tmp_path: Path) -> None:
    job = sent(a_job(counted("true"), limits__pool="nowhere", end=2))
    assert drqueue.request_job_frame_finish(job.id, 1, C) == 1
    info = frame(job, 1)
    assert (info.status, info.exitcode, info.requeued) == (FINISHED, 0, 0)
    assert (fresh(job).fdone, job.fleft) == (1, 1)
    assert drqueue.request_job_frame_finish(job.id, 2, C) == 1
    assert fresh(job).status == drqueue.JOBSTATUS_FINISHED
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("finish", [drqueue.request_job_frame_finish, drqueue.request_job_frame_kill_finish])
def test_frame_finish_of_a_running_frame_ends_it_and_ignores_its_report(
    finish: Callable[[int, int, int], int], gated: Gated
) -> None:
    job, _ = gated()
    until_runs(job, 1)
    assert finish(job.id, 1, C) == 1
    assert frame(job, 1).status == FINISHED
    assert fresh(job).status == drqueue.JOBSTATUS_FINISHED
    eventually("nothing runs", lambda: not tasks())
    info = frame(job, 1)
    assert (info.status, info.exitcode, info.requeued) == (FINISHED, 0, 0)


def test_frame_kill_finish_is_for_running_frames_only(gated: Gated) -> None:
    job, gates = gated(5)
    until_frames(job, [ASSIGNED] * 4 + [WAITING])
    assert drqueue.request_job_frame_kill_finish(job.id, 5, C) == 1
    assert statuses(job) == [ASSIGNED] * 4 + [WAITING]
    gates.end_all()
    assert until_finished(job).fdone == 5


def test_a_frame_that_there_is_not_gives_0(gated: Gated) -> None:
    """The original said 1, and nothing happened."""
    job, gates = gated()
    for call in (
        drqueue.request_job_frame_waiting,
        drqueue.request_job_frame_kill,
        drqueue.request_job_frame_finish,
        drqueue.request_job_frame_kill_finish,
        drqueue.request_job_frame_reset_requeued,
    ):
        assert call(job.id, 2, C) == 0
        assert call(job.id + 1, 1, C) == 0
    gates.end(1)
    until_finished(job)
