"""F3, P5: kill -9 of the slave's daemon, again and again, loses no frame, exit status or byte of a log."""

import signal
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Exited, LogKept, Report
from drqueue.proto.model import RunOrder
from drqueue.slave.logs import log_path
from tests.slave.lives import Installed, ended_well
from tests.slave.scripted_master import MasterLink, ScriptedMaster
from tests.slave.test_daemon import an_order, until

pytestmark = pytest.mark.slow

KILLS = 3
FRAMES = 4
KEYS = [AttemptKey(1, 0, frame, 1) for frame in range(FRAMES)]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


def talking(tmp_path: Path, frame: int) -> RunOrder:
    """A frame that writes numbered lines on both its outputs until it may end, and then how many it wrote."""
    shell = f"""
        n=0
        until [ -e {tmp_path}/go{{frame}} ]; do
            n=$((n + 1))
            echo "line $n of frame {{frame}}"
            [ $((n % 7)) -eq 0 ] && printf 'to the side \\377 %d\\n' $n >&2
            sleep 0.002
        done
        echo $n > {tmp_path}/count{{frame}}
        [ {{frame}} -eq 3 ] && kill -USR1 $$
        exit 2{{frame}}
    """
    return an_order(frame, shell=shell, cores=1)


def written(frame: int, count: int) -> bytes:
    """What a frame writes in so many lines."""
    lines = []
    for n in range(1, count + 1):
        lines.append(b"line %d of frame %d\n" % (n, frame))
        if n % 7 == 0:
            lines.append(b"to the side \xff %d\n" % n)
    return b"".join(lines)


def all_grew(paths: list[Path], sizes: list[int]) -> bool:
    """Whether each file is longer than that."""
    return all(path.stat().st_size > size for path, size in zip(paths, sizes, strict=True))


async def all_told(link: MasterLink) -> tuple[dict[AttemptKey, Exited], dict[AttemptKey, LogKept]]:
    """Every frame's exit and the ends of its log, once all have come."""
    exits: dict[AttemptKey, Exited] = {}
    logs: dict[AttemptKey, LogKept] = {}
    seen = 0
    with trio.fail_after(20):
        while len(exits) < FRAMES or len(logs) < FRAMES:
            for message in link.heard[seen:]:
                if isinstance(message, Report):
                    exits |= {item.key: item for item in message.exited}
                elif isinstance(message, LogKept):
                    logs[message.key] = message
            seen = len(link.heard)
            if len(exits) < FRAMES or len(logs) < FRAMES:
                message = await link.channel.receive()
                link.heard.append(message)
    return exits, logs


async def test_f03_p5_no_byte_of_a_log_and_no_exit_status_is_lost(
    tmp_path: Path, master: ScriptedMaster
) -> None:
    """While the frames write; one ends before the last kill, two while there is no daemon, one after."""
    state = tmp_path / "s"
    paths = [Path(log_path(str(state), key)) for key in KEYS]
    program = Installed(tmp_path, state, master)
    with ended_well(program):
        program.start()
        for life in range(KILLS):
            async with master.link() as link:
                hello = await link.register()
                assert {held.key for held in hello.held} == set(KEYS if life else ())
                if not life:
                    link.order(*[talking(tmp_path, frame) for frame in range(FRAMES)])
                await until(lambda: all(path.exists() and path.stat().st_size for path in paths))
                before = [path.stat().st_size for path in paths]
                if life == KILLS - 1:
                    (tmp_path / "go0").touch()
                    assert (await link.hear_exit(KEYS[0])).exit.code == 20
                await program.killed()
            # They write on while nobody is there.
            await until(partial(all_grew, paths[1:], before[1:]))
            if life < KILLS - 1:
                program.start()
        for frame in (1, 3):
            (tmp_path / f"go{frame}").touch()
        await until(lambda: all((tmp_path / f"count{frame}").exists() for frame in (0, 1, 3)))
        program.start()
        async with master.link() as link:
            hello = await link.register()
            assert {held.key for held in hello.held} == set(KEYS)
            (tmp_path / "go2").touch()
            exits, logs = await all_told(link)
    for frame, key in enumerate(KEYS):
        exit_ = exits[key].exit
        wanted = (None, signal.SIGUSR1) if frame == 3 else (20 + frame, None)
        assert (exit_.code, exit_.signal, exit_.reason) == (*wanted, "")
        whole = written(frame, int((tmp_path / f"count{frame}").read_text()))
        assert paths[frame].read_bytes() == whole
        assert exit_.log_bytes == len(whole)
        ends = logs[key].ends
        head, tail = (zlib.decompress(part) if ends.packed else part for part in (ends.head, ends.tail))
        assert (ends.size, head, tail) == (len(whole), whole, b"")
