"""The blocking client: the same answers and errors, from any thread, and no thread left behind."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.client import Client, DrQueueError, JobSpec, LayerSpec, MasterUnreachable, NoSuchJob
from drqueue.proto import messages
from tests.client.peer import Peer, Reply, frame_view, in_thread, job_view


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Peer]:
    """A scripted master that answers some requests, and never `Why`."""
    on: dict[type, Reply] = {
        messages.GetJob: lambda _, asked: (
            messages.Job(rq=asked.rq, job=job_view(asked.job), layers=())
            if asked.job < 100
            else messages.Refusal(rq=asked.rq, code="no-such-job", text=f"there is no job {asked.job}")
        ),
        messages.Submit: lambda _, asked: messages.Submitted(rq=asked.rq, job=5),
        messages.ListFrames: lambda _, asked: messages.Frames(
            rq=asked.rq,
            frames=(frame_view(asked.cursor + 1),),
            next=asked.cursor + 1 if asked.cursor < 2 else None,
        ),
        messages.Watch: lambda channel, asked: channel.send_many(
            [
                messages.Watching(rq=asked.rq, watch=1),
                messages.Changed(watch=1, jobs=(job_view(3, "FINISHED"),)),
            ]
        ),
    }
    with in_thread(str(tmp_path / "master.sock"), on) as peer:
        yield peer


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "drqueue client"]


def test_calls_block_and_answer(master: Peer) -> None:
    with Client(master.address) as farm:
        assert farm.job(3)[0].name == "job3"
        assert farm.submit(JobSpec(name="x", layers=(LayerSpec(argv=("true",)),))) == 5
        assert [view.number for view in farm.frames(1)] == [1, 2, 3]
        assert [view.number for view in farm.each_frame(1)] == [1, 2, 3]
        assert client_threads()
    assert not client_threads()


def test_errors_come_out_where_the_call_was_made(master: Peer) -> None:
    with Client(master.address) as farm:
        with pytest.raises(NoSuchJob, match="there is no job 100"):
            farm.job(100)
        assert farm.job(1)[0].id == 1


def test_no_master_is_told_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(MasterUnreachable):
        Client(f"unix:{tmp_path}/nobody.sock")
    for thread in client_threads():
        thread.join(20)
    assert not client_threads()


def test_changes_and_waiting(master: Peer) -> None:
    seen: list[str] = []
    with Client(master.address) as farm:
        with farm.watch(jobs=True) as changes:
            assert next(changes).jobs[0].id == 3
        (view,) = farm.wait([3], lambda views: seen.append(views[3].state))
    assert view.state == "FINISHED"
    assert seen == ["ACTIVE", "FINISHED"]


def test_several_threads_share_one_client(master: Peer) -> None:
    got: list[int] = []
    with Client(master.address) as farm:
        threads = [threading.Thread(target=lambda n=n: got.append(farm.job(n)[0].id)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(got) == list(range(8))


def test_an_interrupt_cancels_the_call_and_not_the_client(master: Peer) -> None:
    """The watch behind `wait` is ended, so nothing of the call is left in the thread."""
    main = threading.get_ident()

    def interrupt() -> None:
        while "GetJob" not in master.kinds():
            assert threading.main_thread().is_alive()
        signal.pthread_kill(main, signal.SIGINT)

    # Whoever starts the tests in the background may have it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        with Client(master.address) as farm:
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                farm.wait([1])
            while "Unwatch" not in master.kinds():
                assert farm.job(1)[0].id == 1
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join(20)


def test_what_a_signal_handler_raises_cancels_the_call_too(master: Peer) -> None:
    """A program that gives itself an alarm does not submit in the background what it gave up."""
    main = threading.get_ident()

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError("too long")

    def alarm() -> None:
        while "GetJob" not in master.kinds():
            assert threading.main_thread().is_alive()
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, give_up)
    thread = threading.Thread(target=alarm)
    try:
        with Client(master.address) as farm:
            thread.start()
            with pytest.raises(TimeoutError, match="too long"):
                farm.wait([1])
            deadline = time.monotonic() + 20
            while "Unwatch" not in master.kinds():
                assert farm.job(1)[0].id == 1
                assert time.monotonic() < deadline, "the call goes on"
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join(20)


def test_closing_ends_calls_that_wait_in_other_threads(master: Peer) -> None:
    errors: list[BaseException] = []
    farm = Client(master.address)

    def ask() -> None:
        try:
            farm.why(1)
        except DrQueueError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while "Why" not in master.kinds():
        assert thread.is_alive()
    farm.close()
    thread.join(20)
    assert [str(error) for error in errors] == ["the client was closed"]
    with pytest.raises(DrQueueError, match="closed"):
        farm.job(1)
    farm.close()
