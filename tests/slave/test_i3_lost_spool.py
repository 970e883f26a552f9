"""I3, P4: what a lost spool does not know is ended before the master hears what this slave runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from drqueue.channel import LinkClosed
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Hello
from drqueue.slave.orphans import running_attempts
from drqueue.slave.supervisor import Supervisor
from tests.slave.lives import a_life, all_started, kill_keeper
from tests.slave.scripted_master import ScriptedMaster
from tests.slave.test_daemon import an_order, is_gone

pytestmark = pytest.mark.slow

KEYS = [AttemptKey(1, 0, frame, 1) for frame in range(2)]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


def lose(spool: Path, how: str) -> None:
    """Damage the first record, or what makes the file a spool, or have no spool at all."""
    data = bytearray(spool.read_bytes())
    if how == "gone":
        spool.unlink()
    elif how == "first record":
        data[24] ^= 1
        spool.write_bytes(data)
    else:
        spool.write_bytes(bytes(12) + data[12:])


@pytest.mark.parametrize(
    ("how", "keeper"),
    [("first record", "keeper lives"), ("zeros", "keeper killed"), ("gone", "keeper lives")],
)
async def test_i3_no_hello_before_frames_of_a_lost_spool_are_gone(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch, how: str, keeper: str
) -> None:
    state = tmp_path / "s"
    async with a_life(state, master) as daemon, master.link() as link:
        await link.register()
        link.order(*[an_order(frame, argv=("sleep", "1000"), cores=1) for frame in range(2)])
        await all_started(link, KEYS)
        pids = [daemon._state.held[key].pid for key in KEYS]
    assert running_attempts(str(state)) == set(KEYS)
    lose(state / "spool", how)
    if keeper == "keeper killed":
        await kill_keeper(state)
    held_back: list[AttemptKey] = []
    signal_tree = Supervisor.signal_tree
    monkeypatch.setattr(Supervisor, "signal_tree", lambda self, key, kill: held_back.append(key))
    async with a_life(state, master) as daemon:
        async with master.link() as link:
            with pytest.raises(LinkClosed):
                await link.hear(Hello)
        assert set(held_back) == set(KEYS)
        assert not any(map(is_gone, pids))
        monkeypatch.setattr(Supervisor, "signal_tree", signal_tree)
        for key in KEYS:
            daemon._supervisor.signal_tree(key, kill=True)
        daemon._supervisor.flush()
        hello = await said_hello(master)
        assert hello.held == ()
        assert all(map(is_gone, pids))
        await daemon._supervisor.shutdown()


async def said_hello(master: ScriptedMaster) -> Hello:
    """The Hello of the first link that gets so far."""
    with trio.fail_after(20):
        while True:
            async with master.link() as link:
                try:
                    return await link.register()
                except LinkClosed:
                    continue


async def test_a_daemon_inside_of_another_farms_frame_is_none_of_its_own_frames(tmp_path: Path) -> None:
    """It carries that farm's mark, and writes into its own directory, as its keeper does."""
    state = tmp_path / "s"
    (state / "logs" / "1").mkdir(parents=True)
    env = {"PATH": os.environ["PATH"], "DRQUEUE_ATTEMPT": "1/0/0/1"}
    found = []
    for path in (state / "slave.log", state / "logs" / "1" / "0.0.1.log"):
        with open(path, "wb") as file:  # noqa: ASYNC230
            process = await trio.lowlevel.open_process(["sleep", "1000"], env=env, stdout=file, stderr=file)
        found.append(running_attempts(str(state)))
        process.kill()
        await process.wait()
    assert found == [set(), {KEYS[0]}]
