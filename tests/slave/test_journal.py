"""What is said of a state directory that cannot be written, and when."""

import errno
import logging
import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from drqueue.proto.model import SlaveLimits
from drqueue.slave import journal as module
from drqueue.slave.core.records import LimitsSet, MasterHeard
from drqueue.slave.journal import Journal
from drqueue.statefile import StateError

HEARD = MasterHeard(1.0, 0.0)
ONE = LimitsSet(SlaveLimits(max_cpus=1))


@pytest.fixture
def journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Journal:
    caplog.set_level(logging.INFO)
    made = Journal(str(tmp_path), "n", ("Default",), "boot")
    made.start([])
    return made


async def test_a_write_that_is_under_way_is_no_failure(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever looks just then, to try again what failed, has nothing to say."""
    go_on = threading.Event()

    def slow(folder: str, limits: SlaveLimits) -> None:
        assert go_on.wait(20)

    monkeypatch.setattr(module, "save_limits", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.commit, [ONE])
        await trio.testing.wait_all_tasks_blocked()
        under_way = not journal.whole
        nursery.start_soon(journal.retry)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert under_way
    assert journal.whole
    assert caplog.records == []
    journal.close()


async def test_a_failure_is_said_once_and_its_end(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: str, limits: SlaveLimits) -> None:
        raise StateError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_limits", full)
        await journal.commit([ONE])
        await journal.commit([ONE])
        assert not await journal.retry()
    assert await journal.retry()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "cannot be written" in said[0]
    assert "can be written again" in said[1]
    journal.close()


def test_records_of_attempts_are_written_at_once(journal: Journal) -> None:
    assert journal.commit_now([HEARD, HEARD])
    assert journal.whole
    assert journal.load() == [HEARD, HEARD]
    journal.close()


def test_what_goes_elsewhere_is_not_written_at_once(journal: Journal) -> None:
    assert not journal.commit_now([HEARD, ONE])
    assert journal.whole
    assert journal.load() == []
    journal.close()


async def test_nothing_is_written_before_what_waits(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert journal.commit_now([HEARD])
    assert list(journal.unwritten) == [HEARD]
    later = MasterHeard(2.0, 0.0)
    assert not journal.commit_now([later])
    await journal.commit([later])
    assert journal.whole
    assert journal.load() == [HEARD, later]
    journal.close()
