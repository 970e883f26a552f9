"""F17, P5: frames go on below the keeper of another version, newer or older, down to the first there was."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import drqueue
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Held, LogKept, Stop
from drqueue.proto.model import RunOrder
from drqueue.slave import keeper_health, keeper_link
from tests.slave.lives import Installed, a_life, ended_well, keeper_of
from tests.slave.scripted_master import MasterLink, ScriptedMaster
from tests.slave.test_daemon import an_order, is_gone, until

pytestmark = pytest.mark.slow

FIRST_KEEPER = Path(__file__).with_name("first_keeper") / "slave" / "keeper.py"
"""A copy of the keeper as it was when this protocol began: no users, no bases, no pings."""
KEYS = [AttemptKey(1, 0, frame, 1) for frame in range(4)]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    """Two installations, the older one first."""
    folders = []
    for version in ("98.0", "99.0"):
        package = Path(drqueue.__file__).parent
        folder = tmp_path / version
        shutil.copytree(package, folder / "drqueue", ignore=shutil.ignore_patterns("__pycache__"))
        init = folder / "drqueue" / "__init__.py"
        text = init.read_text().replace(f'"{drqueue.__version__}"', f'"{version}"')
        assert version in text
        init.write_text(text)
        folders.append(folder)
    return folders[0], folders[1]


def holding(tmp_path: Path, frame: int) -> RunOrder:
    """A frame that says a word, waits for its file, says another, and ends with a status of its own."""
    go = tmp_path / f"go{frame}"
    shell = f"echo $PPID {{frame}}; until [ -e {go} ]; do sleep 0.02; done; echo end >&2; exit 1{frame}"
    return an_order(frame, shell=shell, cores=1)


async def ends(link: MasterLink, tmp_path: Path, frame: int, keeper: int) -> None:
    """That frame ends by its file: told exactly, its log whole, and all of it below that keeper."""
    (tmp_path / f"go{frame}").touch()
    ended = (await link.hear_exit(KEYS[frame])).exit
    assert (ended.code, ended.signal, ended.reason) == (10 + frame, None, "")
    log = f"{keeper} {frame}\nend\n".encode()
    assert ended.log_bytes == len(log)
    kept = next((m for m in link.heard if isinstance(m, LogKept) and m.key == KEYS[frame]), None)
    while kept is None or kept.key != KEYS[frame]:
        kept = await link.hear(LogKept)  # type: ignore[assignment]
    assert kept.ends.head == log


def command(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def spoke(path: Path, count: int) -> bool:
    """Whether that many frames wrote their first word."""
    return len([log for log in path.glob("logs/**/*") if log.is_file() and log.stat().st_size]) == count


@pytest.mark.parametrize("back", [False, True], ids=["up", "back"])
async def test_f17_p5_another_version_takes_over_what_runs(
    tmp_path: Path, master: ScriptedMaster, versions: tuple[Path, Path], back: bool
) -> None:
    """One frame ends under the next version, one while there is no daemon, one begins with the old keeper."""
    before, after = reversed(versions) if back else versions
    state = tmp_path / "s"
    first, second = Installed(before, state, master, last=False), Installed(after, state, master)
    with ended_well(second):
        first.start()
        async with master.link() as link:
            assert link.hi.software == f"drqueue {before.name}"
            await link.register()
            link.order(*[holding(tmp_path, frame) for frame in (0, 1)])
            await until(lambda: spoke(state, 2))
            assert await first.end(signal.SIGTERM) == 0
        keeper = keeper_of(state)
        assert f"{before}/drqueue/slave/keeper.py" in command(keeper)
        (tmp_path / "go1").touch()
        await until(lambda: b"end\n" in b"".join(p.read_bytes() for p in state.glob("logs/*/*")))
        second.start()
        async with master.link() as link:
            assert link.hi.software == f"drqueue {after.name}"
            hello = await link.register()
            assert {held.key for held in hello.held} == set(KEYS[:2])
            assert Held(KEYS[0], False) in hello.held
            await ends(link, tmp_path, 1, keeper)
            await ends(link, tmp_path, 0, keeper)
            link.order(holding(tmp_path, 2), noted=(KEYS[0], KEYS[1]))
            await ends(link, tmp_path, 2, keeper)
            assert keeper_of(state) == keeper


async def test_f17_p5_the_first_keepers_frames_are_taken_over(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent as it is, it is asked nothing that it does not know; it starts, stops and forgets as ever."""
    state = tmp_path / "s"
    monkeypatch.setattr(keeper_health, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(keeper_health, "PATIENCE_S", 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(keeper_link, "KEEPER", str(FIRST_KEEPER))
        async with a_life(state, master), master.link() as link:
            await link.register()
            link.order(*[holding(tmp_path, frame) for frame in (0, 1, 2)])
            await until(lambda: spoke(state, 3))
            keeper = keeper_of(state)
    assert str(FIRST_KEEPER) in command(keeper)
    (tmp_path / "go1").touch()
    async with a_life(state, master) as daemon, master.link() as link:
        hello = await link.register()
        assert {held.key for held in hello.held} == set(KEYS[:3])
        await ends(link, tmp_path, 1, keeper)
        await trio.sleep(keeper_health.PATIENCE_S * 2)  # of silence, after which others are killed
        await ends(link, tmp_path, 0, keeper)
        link.order(holding(tmp_path, 3), stop=(Stop(KEYS[2], "enough", 0.1),), noted=(KEYS[0], KEYS[1]))
        stopped = (await link.hear_exit(KEYS[2])).exit
        assert (stopped.reason, stopped.text) == ("stopped", "enough")
        await ends(link, tmp_path, 3, keeper)
        link.order(noted=(KEYS[2], KEYS[3]))
        await until(lambda: not daemon._state.held)
        assert keeper_of(state) == keeper
        await daemon._supervisor.shutdown()
    await until(lambda: is_gone(keeper))
    assert (state / "keeper.log").read_text() == ""  # it found nothing strange
