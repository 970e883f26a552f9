"""Calls find the farm that the environment names, from any thread and process, and fail in known words."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import drqueue
from drqueue.client.binding import pipeline, session
from drqueue.proto import messages
from drqueue.proto.link_messages import Rejected
from tests.client.peer import Peer, Reply, in_thread, job_view

NO_MASTER = "Could not connect to master"
NOT_REGISTERED = "Structure (job,computer,task...) not registered"


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No client of another test's, and little patience."""
    monkeypatch.setattr(session, "PATIENCE_S", 0.1)
    session.close()
    yield
    session.close()


def answering(name: str) -> dict[type, Reply]:
    """A master that knows jobs below 100, all of that name."""

    def job(_: object, asked: messages.GetJob) -> messages.Request:
        if asked.job >= 100:
            return messages.Refusal(rq=asked.rq, code="no-such-job", text=f"there is no job {asked.job}")
        return messages.Job(rq=asked.rq, job=job_view(asked.job, name=name), layers=())

    return {messages.GetJob: job}


@pytest.fixture
def master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    with in_thread(str(tmp_path / "master.sock"), answering("first")) as peer:
        monkeypatch.setenv("DRQUEUE_MASTER", peer.address)
        yield peer


def client_threads() -> int:
    return sum(thread.name == "drqueue client" for thread in threading.enumerate())


def name_of(job: int) -> str:
    return drqueue.request_job_name(job, drqueue.CLIENT)


# -- finding the master -----------------------------------------------------------------------------------


def test_one_link_serves_all_calls(master: Peer) -> None:
    assert [name_of(1) for _ in range(5)] == ["first"] * 5
    assert len(master.links) == 1
    assert client_threads() == 1


def test_the_environment_is_read_at_each_call(
    master: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_thread(str(tmp_path / "other.sock"), answering("second")) as other:
        assert name_of(1) == "first"
        monkeypatch.setenv("DRQUEUE_MASTER", other.address)
        assert name_of(1) == "second"
        monkeypatch.setenv("DRQUEUE_MASTER", master.address)
        assert name_of(1) == "first"
        assert len(master.links) == 1


def test_the_state_directory_says_where_too(master: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRQUEUE_MASTER")
    monkeypatch.setenv("DRQUEUE_STATE_DIR", os.path.dirname(master.path))
    assert name_of(1) == "first"


def test_many_threads_share_a_client(master: Peer) -> None:
    got: list[str] = []

    def ask() -> None:
        got.extend(name_of(number) for number in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == ["first"] * 160
    assert len(master.links) == 1


def test_only_so_many_clients_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0)
    for number in range(session.KEPT + 3):
        monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/{number}.sock")
        assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert client_threads() == session.KEPT


def test_a_client_in_use_is_not_the_one_that_goes(
    master: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0)
    held, go = threading.Event(), threading.Event()
    slow = answering("slow")

    def late(_: object, asked: messages.GetJob) -> object:
        held.set()
        assert go.wait(20)
        return messages.Job(rq=asked.rq, job=job_view(asked.job, name="slow"), layers=())

    slow[messages.GetJob] = late
    got: list[str] = []
    with in_thread(str(tmp_path / "slow.sock"), slow) as peer:
        monkeypatch.setenv("DRQUEUE_MASTER", peer.address)
        thread = threading.Thread(target=lambda: got.append(name_of(1)))
        thread.start()
        assert held.wait(20)
        for number in range(session.KEPT + 3):
            monkeypatch.setenv("DRQUEUE_MASTER", f"unix:{tmp_path}/{number}.sock")
            assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
        go.set()
        thread.join(20)
    assert got == ["slow"]


# -- failures ---------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"unix:{tmp_path}/nobody.sock"
    monkeypatch.setenv("DRQUEUE_MASTER", address)
    return address


def test_without_a_master_plain_functions_return_0(nobody: str) -> None:
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert drqueue.last_error() == f"{NO_MASTER}: no master answers at {nobody}"


def test_a_master_on_another_machine_wants_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRQUEUE_MASTER", "node7")
    monkeypatch.setattr(session, "PATIENCE_S", 0)
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert drqueue.last_error().startswith(f"{NO_MASTER}: there is no login for node7:1234 in ")


def test_without_a_master_lists_raise(nobody: str) -> None:
    for call in (drqueue.request_job_list, drqueue.request_computer_list):
        with pytest.raises(IOError, match=NO_MASTER):
            call(drqueue.CLIENT)
    with pytest.raises(IOError, match=NO_MASTER):
        drqueue.request_job_list_blocked_host(1, drqueue.CLIENT)
    with pytest.raises(IOError, match=NO_MASTER):
        drqueue.request_job_name(1, drqueue.CLIENT)


def test_without_a_master_methods_raise(nobody: str) -> None:
    job = drqueue.job()
    job.name, job.cmd = "a", "true"
    with pytest.raises(IOError, match=NO_MASTER):
        job.send_to_queue()
    with pytest.raises(IOError, match=NO_MASTER):
        job.update(drqueue.CLIENT)


def test_patience_lasts_as_long_as_it_says(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE_S", 0.8)
    before = time.monotonic()
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert 0.3 < time.monotonic() - before < 10


def test_the_patience_is_the_originals() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "from drqueue.client.binding import session; print(session.PATIENCE_S)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 3 <= float(out.stdout) <= 6


def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRQUEUE_MASTER", "no such:place")
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert drqueue.last_error().startswith(f"{NO_MASTER}: no master at 'no such:place'")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("no-such-job", NOT_REGISTERED),
        ("no-such-frame", NOT_REGISTERED),
        ("no-such-slave", NOT_REGISTERED),
        ("bad-range", "Received request answer value not appropiate for this query"),
        ("disk-full", "Received request answer value not appropiate for this query"),
        ("of-the-future", "Received request answer value not appropiate for this query"),
    ],
)
def test_refusals_in_the_originals_words(master: Peer, code: str, text: str) -> None:
    master.on[messages.JobVerb] = lambda _, asked: messages.Refusal(
        rq=asked.rq, code=code, text="for a reason"
    )
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert drqueue.last_error() == f"{text}: for a reason"


def test_a_master_of_another_version(master: Peer) -> None:
    master.reject = Rejected(code="version", text="upgrade the client")
    assert drqueue.request_job_stop(1, drqueue.CLIENT) == 0
    assert drqueue.last_error() == "Different version number than expected: upgrade the client"


def test_a_slave_that_is_not_there(master: Peer, tmp_path: Path) -> None:
    host = f"unix:{tmp_path}/gone.sock"
    assert drqueue.request_slave_job_available(host, drqueue.CLIENT) == 0
    assert drqueue.last_error() == f"Communications error: no slave answers at {host}"
    assert drqueue.request_slave_limits_enabled_set(host, 1, drqueue.CLIENT) == 0
    assert drqueue.last_error().startswith("Communications error: ")


def test_the_latest_error_goes_with_the_next_success(master: Peer) -> None:
    with pytest.raises(IOError, match="there is no job 100"):
        name_of(100)
    assert drqueue.last_error() == f"{NOT_REGISTERED}: there is no job 100"
    name_of(1)
    assert drqueue.last_error() == "No error"


def test_each_thread_has_its_own_latest_error(master: Peer) -> None:
    with pytest.raises(IOError, match="no job 100"):
        name_of(100)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(drqueue.last_error()))
    thread.start()
    thread.join(20)
    assert seen == ["No error"]
    assert "no job 100" in drqueue.last_error()


def test_wrong_arguments_are_told_before_anything_is_sent(master: Peer) -> None:
    d = drqueue
    with pytest.raises(OverflowError):
        d.request_job_stop(-1, d.CLIENT)
    with pytest.raises(OverflowError):
        d.request_job_stop(2**32, d.CLIENT)
    with pytest.raises(OverflowError):
        d.request_job_stop(1, 65536)
    with pytest.raises(TypeError):
        d.request_job_stop("1", d.CLIENT)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        d.request_job_limits_pool_set(1, None, d.CLIENT)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        d.request_job_block_host_by_name(1, None, d.CLIENT)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        d.request_job_limits_pool_set(1, "x" * 128, d.CLIENT)
    with pytest.raises(OverflowError):
        d.request_job_limits_nmaxcpus_set(1, 65536, d.CLIENT)
    with pytest.raises(TypeError):
        d.request_slave_limits_pool_add(None, "a", d.CLIENT)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        d.request_slave_limits_pool_add("s1", None, d.CLIENT)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        d.request_slave_limits_autoenable_set("s1", 256, 0, 1, d.CLIENT)
    with pytest.raises(TypeError):
        d.request_job_xfer(1, None, d.CLIENT)
    with pytest.raises(TypeError):
        d.request_job_xfer(1, d.frame_info(), d.CLIENT)
    with pytest.raises(TypeError):
        d.request_job_xferfi(1, [d.frame_info(), 3], 2, d.CLIENT)
    with pytest.raises(OverflowError):
        d.request_job_xferfi(1, [], -1, d.CLIENT)
    with pytest.raises(TypeError):
        d.register_job(None)
    assert master.heard == []


# -- other processes --------------------------------------------------------------------------------------

FORKS = """
import os, signal, sys, threading
import drqueue as d
from drqueue.client.binding import session

signal.alarm(40)
print("parent", d.request_job_name(1, d.CLIENT), flush=True)
# A child may be made while another thread is in the middle of a call.
held, go = threading.Event(), threading.Event()
def hold():
    with session._table._lock:
        held.set()
        go.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    print("child", d.request_job_name(2, d.CLIENT), d.request_job_stop(1, d.CLIENT), flush=True)
    grandchild = os.fork()
    if grandchild == 0:
        signal.alarm(20)
        print("grandchild", d.request_job_name(3, d.CLIENT), flush=True)
        sys.exit(0)
    assert os.waitpid(grandchild, 0)[1] == 0
    sys.exit(0)
go.set()
thread.join()
assert os.waitpid(pid, 0)[1] == 0
print("parent", d.request_job_name(4, d.CLIENT), flush=True)
"""


def script(code: str) -> subprocess.CompletedProcess[str]:
    # Newer Pythons warn of any fork beside a thread; that it works all the same is what is looked at.
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    return subprocess.run(
        [sys.executable, *quiet, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_a_child_makes_a_client_of_its_own_and_leaves_its_parents_alone(master: Peer) -> None:
    master.on[messages.JobVerb] = lambda _, asked: messages.Done(rq=asked.rq)
    ended = script(FORKS)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ["parent first", "child first 1", "grandchild first", "parent first"]
    assert ended.stdout.splitlines() == lines
    # The parent's last call went over its first link, which its children did not end.
    assert len(master.links) == 3


@pytest.mark.slow
def test_a_program_ends_without_closing_anything(master: Peer) -> None:
    ended = script("import drqueue as d; print(d.request_job_name(1, d.CLIENT))")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "first\n", "")


# -- many questions at once -------------------------------------------------------------------------------


async def test_answers_come_in_the_order_of_the_questions_though_many_wait_at_once() -> None:
    waiting = 0
    most = 0
    everybody = trio.Event()

    async def ask(number: int) -> int:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        if waiting == pipeline.AT_ONCE:
            everybody.set()
        # None is answered before as many wait as may.
        await everybody.wait()
        waiting -= 1
        return number * 2

    with trio.fail_after(20):
        assert await pipeline.each(range(500), ask) == [number * 2 for number in range(500)]
    assert most == pipeline.AT_ONCE


async def test_the_first_error_ends_the_others_and_comes_bare() -> None:
    async def ask(number: int) -> int:
        if number != 3:
            await trio.sleep_forever()
        raise KeyError(number)

    with trio.fail_after(20), pytest.raises(KeyError):
        await pipeline.each(range(500), ask)
    assert await pipeline.each([], ask) == []
