"""What a command gets and leaves: environment, log, mail, what becomes of its job, the times shown."""

import getpass
import os
import re
import time
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import drqueue
from tests.binding.conftest import Gated
from tests.binding.farm import (
    C,
    Farm,
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
WAITING, ASSIGNED, FINISHED = drqueue.FS_WAITING, drqueue.FS_ASSIGNED, drqueue.FS_FINISHED
#: The folders of the slave's settings that commands are told of.
FOLDERS = ("ROOT", "TMP", "ETC", "BIN", "DB")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def farm(folder: Path) -> Iterator[Farm]:
    """One computer of three processors, with folders for logs and mails."""
    for name in ("logs", "mails"):
        (folder / name).mkdir()
    script = folder / "mail.sh"
    script.write_text(f"#!/bin/sh\ncat > {folder}/mails/.$$ && mv {folder}/mails/.$$ {folder}/mails/$$\n")
    script.chmod(0o755)
    settings = {f"DRQUEUE_{name}": f"/the/{name.lower()}" for name in FOLDERS}
    master_env = {"DRQUEUE_MAIL_COMMAND": str(script)}
    with a_farm(folder / "farm", [], master_env=master_env) as farm:
        settings["DRQUEUE_LOGS"] = str(folder / "logs")
        farm.add_slave("s1", cores=3, env=settings)
        yield farm.ready()


@pytest.fixture(autouse=True)
def _cleared(farm: Farm) -> Iterator[None]:
    yield
    clear()


# -- environment --------------------------------------------------------------------------------------------


def variables(path: Path) -> dict[str, str]:
    """What a command wrote with `env -0`."""
    return dict(line.split("=", 1) for line in path.read_bytes().decode().split("\0") if line)


def test_environment_of_a_command(farm: Farm, folder: Path, tmp_path: Path) -> None:
    """A block that is cut short by the end of the range, and steps."""
    job = a_job(f"env -0 > {tmp_path}/$DRQUEUE_FRAME", 1, 10, frame_step=2, block_size=3)
    job.name, job.owner, job.frame_pad = "my job", "ann", 6
    until_finished(sent(job))
    env = variables(tmp_path / "7")
    here = drqueue.request_computer_list(C)[0].hwinfo.id
    expected = {
        "FRAME": "7",
        "PADFRAME": "000007",
        "PADFRAMES": "000007 000009",
        "STARTFRAME": "1",
        "ENDFRAME": "10",
        "STEPFRAME": "2",
        "BLOCKSIZE": "3",
        "OWNER": "ann",
        "JOBNAME": "my job",
        "JOBID": str(job.id),
        "COMPID": str(here),
        "OS": "LINUX",
        "MASTER": farm.address,
        "POOL": "Default",
        "LOGS": str(folder / "logs"),
        **{name: f"/the/{name.lower()}" for name in FOLDERS},
    }
    assert {name: env.get(f"DRQUEUE_{name}") for name in expected} == expected
    assert variables(tmp_path / "1")["DRQUEUE_PADFRAMES"] == "000001 000003 000005"


def test_variables_of_a_job_come_over_those_of_the_computer(tmp_path: Path) -> None:
    job = a_job(f"env -0 > {tmp_path}/env")
    mine = {
        "DRQUEUE_ROOT": "/mine",
        "DRQUEUE_OS": "IRIX",
        "PATH": "/mine/bin:/usr/bin:/bin",
        "OTHER": "a 'b' \"c\" $d\nsecond line",
        "EMPTY": "",
    }
    for name, value in mine.items():
        assert job.environment_variable_add(name, value) == 1
    until_finished(sent(job))
    env = variables(tmp_path / "env")
    assert {name: env.get(name) for name in mine} == mine
    found = drqueue.envvars()
    assert drqueue.request_job_envvars(job.id, found, C) == 1
    assert {each.name: each.value for each in found.variables.ptr} == mine


def test_what_says_which_frame_it_is_cannot_be_overridden(tmp_path: Path) -> None:
    """In the original a job could: then all its frames were the same one."""
    job = a_job(f"env -0 > {tmp_path}/env")
    job.environment_variable_add("DRQUEUE_FRAME", "99")
    until_finished(sent(job))
    assert variables(tmp_path / "env")["DRQUEUE_FRAME"] == "1"


def test_a_command_is_a_shells(tmp_path: Path) -> None:
    """Quotes, variables, braces and pipes are the shell's, and lines are lines."""
    cmd = f"for i in a 'b c' \"${{DRQUEUE_FRAME}}\"; do echo $i; done | sort -r > {tmp_path}/out\ntrue"
    until_finished(sent(a_job(cmd)))
    assert (tmp_path / "out").read_text() == "b c\na\n1\n"


def test_commands_have_groups_of_their_own(tmp_path: Path) -> None:
    job = sent(
        a_job(f"ps -o pgid= -p $$ > {tmp_path}/$DRQUEUE_FRAME; echo $$ >> {tmp_path}/$DRQUEUE_FRAME", 1, 2)
    )
    until_finished(job)
    groups = [(tmp_path / name).read_text().split() for name in ("1", "2")]
    assert all(group == pid for group, pid in groups)
    assert groups[0] != groups[1]


# -- logs ---------------------------------------------------------------------------------------------------


def test_log_path_and_header(folder: Path) -> None:
    """Four digits of the frame's number, whatever the pad; each run adds its header."""
    began = int(time.time())
    job = a_job("echo said $DRQUEUE_FRAME; echo wrong >&2", 9, 10, frame_pad=2)
    job.name = "shot"
    until_finished(sent(job))
    path = folder / "logs" / f"{job.id:03d}.shot" / "shot.0009"
    header = re.compile(
        r"Log started at (?P<when>.*)\nComputer: (?P<computer>.*)\nLog filename: (?P<path>.*)\n\n"
        r"said 9\nwrong\n"
    )
    text = eventually("the log", lambda: whole(path, header, 1))
    match = header.fullmatch(text)
    assert match is not None
    assert began <= time.mktime(time.strptime(match["when"])) <= time.time()
    assert match["computer"] == os.uname().nodename
    assert match["path"] == str(path)
    assert drqueue.request_job_frame_waiting(job.id, 9, C) == 1
    until_finished(job)
    text = eventually("the second log", lambda: whole(path, header, 2))
    assert len(header.findall(text)) == 2
    assert sorted(each.name for each in path.parent.iterdir()) == ["shot.0009", "shot.0010"]


def whole(path: Path, pattern: re.Pattern[str], runs: int) -> str | None:
    """The log, once it holds so many runs."""
    text = path.read_text() if path.exists() else ""
    return text if len(pattern.findall(text)) == runs else None


# -- when a job is finished: mail, and delete ---------------------------------------------------------------


def mails(folder: Path) -> list[Message]:
    return [message_from_string(path.read_text()) for path in sorted((folder / "mails").glob("[0-9]*"))]


@pytest.fixture
def mailbox(folder: Path) -> Iterator[Path]:
    yield folder
    for path in (folder / "mails").iterdir():
        path.unlink()


def test_a_mail_when_the_job_is_finished(mailbox: Path) -> None:
    job = a_job("true", 1, 6, block_size=2, flags=drqueue.JF_MAILNOTIFY, email="ann@example.org")
    job.name = "shot"
    until_finished(sent(job))
    assert fresh(job).email == "ann@example.org"
    assert job.flags & drqueue.JF_MAILNOTIFY
    (mail,) = eventually("the mail", lambda: mails(mailbox) or None)
    assert mail["Subject"] == "Your job (shot) is finished"
    assert mail["To"] == "ann@example.org"
    body = str(mail.get_payload())
    for line in ("Total number of frames: 6", "Average time per frame:", "Total rendering time:"):
        assert line in body


def test_a_mail_goes_to_the_owner_where_no_address_is_given(mailbox: Path) -> None:
    until_finished(sent(a_job("true", flags=drqueue.JF_MAILNOTIFY, owner=getpass.getuser())))
    (mail,) = eventually("the mail", lambda: mails(mailbox) or None)
    assert mail["To"] == getpass.getuser()


def test_no_mail_without_the_flag_and_one_for_each_time_a_job_is_finished(mailbox: Path) -> None:
    until_finished(sent(a_job("true", email="bob@example.org")))
    until_finished(job := sent(a_job("true", flags=drqueue.JF_MAILNOTIFY, email="ann@example.org")))
    eventually("the mail", lambda: len(mails(mailbox)) == 1)
    assert job.request_rerun(C) == 1
    eventually("the second mail", lambda: len(mails(mailbox)) == 2)
    assert {mail["To"] for mail in mails(mailbox)} == {"ann@example.org"}


def test_a_job_that_is_to_be_deleted_goes_when_it_is_finished(gated: Gated) -> None:
    job, gates = gated(2, flags=drqueue.JF_JOBDELETE)
    until_frames(job, [ASSIGNED, ASSIGNED])
    gates.end(1)
    until_frames(job, [FINISHED, ASSIGNED])
    assert fresh(job).flags == drqueue.JF_JOBDELETE
    gates.end(2)
    eventually("it is gone", lambda: drqueue.request_job_list(C) == [])
    with pytest.raises(IOError, match="not registered"):
        job.update(C)


def test_a_mail_is_sent_before_the_job_goes(mailbox: Path) -> None:
    flags = drqueue.JF_JOBDELETE | drqueue.JF_MAILNOTIFY
    sent(a_job("true", flags=flags, email="ann@example.org"))
    eventually("it is gone", lambda: drqueue.request_job_list(C) == [])
    eventually("the mail", lambda: len(mails(mailbox)) == 1)


def test_a_job_with_failed_frames_stays_to_be_looked_at() -> None:
    """The original deleted it with its failures."""
    job = until_finished(sent(a_job("exit 1", flags=drqueue.JF_JOBDELETE, autoRequeue=0)))
    assert fresh(job).ffailed == 1


# -- the times that are shown -------------------------------------------------------------------------------


def test_the_time_a_job_will_take_is_estimated(gated: Gated) -> None:
    """What is left and running, each at the mean time (120 s while none is known), so many at a time."""
    job, gates = gated(5)
    before = int(time.time())
    until_frames(job, [ASSIGNED] * 3 + [WAITING] * 2)
    assert fresh(job).avg_frame_time == drqueue.DFLTAVGFTIME
    moved = job.est_finish_time - 120 * 5 // 3
    assert before - 1 <= moved <= int(time.time())
    # It says the same until something begins or ends.
    began = time.time()
    eventually("a second later", lambda: time.time() > began + 1.1)
    assert fresh(job).est_finish_time == moved + 120 * 5 // 3
    gates.end(1)
    until_frames(job, [FINISHED] + [ASSIGNED] * 3 + [WAITING])
    lasted = frame(job, 1).end_time - frame(job, 1).start_time
    assert abs(fresh(job).avg_frame_time - lasted) <= 1
    assert 0 <= job.est_finish_time - int(time.time()) + 2 <= 4 + job.avg_frame_time * 4 // 3
    gates.end_all()
    until_finished(job)
    assert abs(job.est_finish_time - int(time.time())) <= 2
    finished = job.est_finish_time
    assert fresh(job).est_finish_time == finished


def test_a_job_that_waits_is_estimated_from_when_it_came() -> None:
    job = sent(a_job("true", 1, 10, limits__pool="nowhere"))
    assert fresh(job).est_finish_time == job.submit_time + 120 * 10
    assert (job.avg_frame_time, job.fleft, job.nprocs) == (120, 10, 0)
    assert abs(job.submit_time - time.time()) < 10


def test_the_times_of_a_frame(gated: Gated) -> None:
    """None before it runs, a start while it runs, both when it is over; a requeue begins anew."""
    job, gates = gated(1, limits__pool="nowhere")
    info = frame(job, 1)
    assert (info.start_time, info.end_time, info.itask, info.icomp) == (0, 0, 0, 0)
    assert drqueue.request_job_limits_pool_set(job.id, "Default", C) == 1
    info = until_runs(job, 1)
    assert abs(info.start_time - time.time()) < 10
    assert info.end_time == 0
    gates.end(1)
    until_finished(job)
    info = frame(job, 1)
    assert info.start_time <= info.end_time <= time.time()
    assert drqueue.request_job_limits_pool_set(job.id, "nowhere", C) == 1
    assert drqueue.request_job_frame_waiting(job.id, 1, C) == 1
    info = frame(job, 1)
    assert (info.start_time, info.end_time, statuses(job)) == (0, 0, [WAITING])
