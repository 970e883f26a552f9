"""P5: a slave whose daemon stays away longer than its keeper lingers, as in an upgrade, loses nothing."""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, LogKept
from drqueue.slave import outputs, unheard
from drqueue.slave.spool import Spool
from tests.slave.lives import Installed, a_life, all_started, ended_well, kill_keeper
from tests.slave.scripted_master import ScriptedMaster
from tests.slave.test_daemon import an_order, until

pytestmark = pytest.mark.slow

KEYS = [AttemptKey(1, 0, frame, 1) for frame in range(3)]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


def shell(tmp_path: Path, status: str) -> str:
    """A frame that ends once it may."""
    return f"echo begun; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo over; exit {status}"


def kept(state: Path) -> int:
    """How many ends stand in the keeper's file."""
    return len(unheard.read(str(state))[0])


async def test_p5_exit_statuses_and_logs_outlive_daemon_and_keeper(
    tmp_path: Path, master: ScriptedMaster
) -> None:
    """The next daemon tells them exactly, once its spool has them it needs neither keeper nor file."""
    state = tmp_path / "s"
    program = Installed(tmp_path, state, master)
    with ended_well(program):
        program.start()
        async with master.link() as link:
            await link.register()
            link.order(*[an_order(f, shell=shell(tmp_path, f"3{f}"), cores=1) for f in range(3)])
            await all_started(link, KEYS)
            await program.killed()
        (tmp_path / "go").touch()
        await until(lambda: kept(state) == 3)
        await kill_keeper(state)
        program.start()
        async with master.link() as link:
            hello = await link.register()
            assert set(hello.held) == {Held(key, True) for key in KEYS}
            for frame, key in enumerate(KEYS):
                ended = next((i for m in link.heard for i in getattr(m, "exited", ()) if i.key == key), None)
                exit_ = (ended or await link.hear_exit(key)).exit
                assert (exit_.code, exit_.reason, exit_.log_bytes) == (30 + frame, "", 11)
            while len(logs := [m for m in link.heard if isinstance(m, LogKept)]) < 3:
                await link.hear(LogKept)
            assert {log.ends.head for log in logs} == {b"begun\nover\n"}
            await until(lambda: not (state / unheard.NAME).exists())
            await program.killed()
        program.start()
        async with master.link() as link:
            hello = await link.register()
            assert set(hello.held) == {Held(key, True) for key in KEYS}
            exits = [await link.hear_exit(KEYS[0])]
            exits += [i for m in link.heard for i in getattr(m, "exited", ())]
            assert {(item.key.frame, item.exit.code) for item in exits} == {(0, 30), (1, 31), (2, 32)}


async def away(tmp_path: Path, master: ScriptedMaster, **fields: object) -> None:
    """One frame, whose daemon and keeper are gone when it ends."""
    state = tmp_path / "s"
    async with a_life(state, master), master.link() as link:
        await link.register()
        link.order(an_order(0, shell=shell(tmp_path, "0"), **fields))
        await link.hear_start(KEYS[0])
    (tmp_path / "go").touch()
    await until(lambda: kept(state) == 1)
    await kill_keeper(state)


async def test_p5_the_file_stays_while_the_spool_cannot_be_written(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "s"
    await away(tmp_path, master)
    append, tries, full = Spool.append_encoded, 0, True

    def appended(self: Spool, records: Iterable[bytes]) -> None:
        nonlocal tries
        if full:
            tries += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, records)

    monkeypatch.setattr(Spool, "append_encoded", appended)
    monkeypatch.setattr("drqueue.slave.daemon.RETRY_S", 0.02)
    async with a_life(state, master) as daemon, master.link() as link:
        await until(lambda: KEYS[0] in daemon._state.ended and tries > 10)
        assert kept(state) == 1
        full = False
        await link.register()
        assert (await link.hear_exit(KEYS[0])).exit.code == 0
        await until(lambda: not (state / unheard.NAME).exists())


async def test_p5_the_file_stays_while_outputs_are_looked_at(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the spool says that the frame runs."""
    state = tmp_path / "s"
    go_on = trio.Event()
    turns = 0

    def verify(*_: object) -> str | None:
        trio.from_thread.run(go_on.wait)
        return None

    await away(tmp_path, master, outputs=("x",))
    monkeypatch.setattr(outputs, "verify", verify)
    monkeypatch.setattr("drqueue.slave.daemon.RETRY_S", 0.02)
    async with a_life(state, master) as daemon, master.link() as link:
        dropped = daemon._ends.drop

        def count(is_safe: object) -> None:
            nonlocal turns
            turns += 1
            dropped(is_safe)  # type: ignore[arg-type]

        monkeypatch.setattr(daemon._ends, "drop", count)
        await link.register()
        await until(lambda: turns > 5)
        assert kept(state) == 1
        go_on.set()
        assert (await link.hear_exit(KEYS[0])).exit.code == 0
        await until(lambda: not (state / unheard.NAME).exists())


async def test_a_reboot_is_recognised_at_once(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the former boot runs: lost, said with the first words of the link, whatever files say."""
    state = tmp_path / "s"
    await away(tmp_path, master)
    for module in ("drqueue.slave.daemon.boot_id", "drqueue.slave.unheard.boot"):
        monkeypatch.setattr(module, lambda: "another-boot")
    async with a_life(state, master), master.link() as link:
        hello = await link.register()
        assert hello.held == (Held(KEYS[0], True),)
        ended = (await link.hear_exit(KEYS[0])).exit
        assert (ended.reason, ended.text) == ("lost", "the machine was started anew meanwhile")
        await until(lambda: not (state / unheard.NAME).exists())
