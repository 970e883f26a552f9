"""F16: slaves whose state was copied, on their own machine and to another.

The original lives meanwhile, or is away while its frames run on. Whoever runs a copy means well: nothing was
lost, so no frame may be, and none may run twice.
"""

import json
import secrets
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from drqueue.client import AsyncClient
from drqueue.client.farm import Daemon, LocalFarm
from drqueue.proto.views import SlaveView
from tests.e2e.helpers import until
from tests.faults import levels
from tests.faults.farm import PATIENCE_S, Sayings, a_farm_at_work, kill, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

RUNNER = Path(__file__).with_name("other_host.py")


def another_machine(root: Path) -> Path:
    """What is seen of a machine that has another id than this one, was booted another time, has no cards."""
    for name in ("etc/machine-id", "proc/sys/kernel/random/boot_id"):
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{secrets.token_hex(16)}\n")
    return root


def copy_state(daemon: Daemon, to: Path) -> None:
    """A copy of a slave's state directory as it is at one moment, with its daemon running or not."""
    process = daemon.process
    assert process is not None
    ignored = shutil.ignore_patterns("*.sock")
    if process.poll() is not None:
        shutil.copytree(daemon.state_dir, to, ignore=ignored)
        return
    with opened(daemon.pid, daemon.state_dir) as descriptor:
        signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
        try:
            shutil.copytree(daemon.state_dir, to, ignore=ignored)
        finally:
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)


def a_copy(farm: LocalFarm, of: Daemon, number: int) -> Daemon:
    """A slave over a copy of another's state, by the same name; it is not started."""
    copy = farm._slave(f"copy{number}", ["--cores", "2", "--gpus", "none"])
    copy.argv = [of.name.removeprefix("slave-") if word == f"copy{number}" else word for word in copy.argv]
    copy_state(of, Path(copy.state_dir))
    farm.slaves.append(copy)
    return copy


def elsewhere(copy: Daemon, root: Path) -> None:
    """Let a copy be one on another machine's disk, where it lies at the same path as the original."""
    path = Path(copy.state_dir) / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "path": str(path.parent)}))
    python, _, module, *options = copy.argv
    copy.argv = [python, str(RUNNER), str(another_machine(root)), module, *options]
    copy.env = {**copy.env, "PYTHONPATH": str(Path(__file__).parents[2])}


def a_twin(farm: LocalFarm, of: Daemon, number: int) -> Daemon:
    """A slave that has another's identity, kept by a version that did not say where it lay; not started."""
    twin = farm._slave(f"twin{number}", ["--cores", "2", "--gpus", "none"])
    folder = Path(twin.state_dir)
    folder.mkdir(mode=0o700)
    stored = json.loads((Path(of.state_dir) / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps({**stored, "path": ""}))
    farm.slaves.append(twin)
    return twin


def identity(daemon: Daemon) -> str:
    return str(json.loads((Path(daemon.state_dir) / "identity.json").read_text())["id"])


async def at_home(client: AsyncClient, daemon: Daemon) -> SlaveView:
    """What the master says of the slave whose state lies there, once it is linked."""
    with trio.fail_after(PATIENCE_S):
        while True:
            for view in await client.slaves():
                if view.linked and Path(view.control.removeprefix("unix:")).parent == Path(daemon.state_dir):
                    return view
            await trio.sleep(0.05)


async def works(client: AsyncClient, name: str) -> None:
    """Return once a slave runs something."""

    async def runs() -> bool:
        return bool((await client.slave(name)).running)

    await until(f"{name} has frames", runs, PATIENCE_S)


async def retire(farm: LocalFarm, client: AsyncClient, daemon: Daemon, name: str) -> None:
    """End a slave once its frames have ended, for good."""
    await client.disable_slave(name)

    async def idle() -> bool:
        return not (await client.slave(name)).running

    await until(f"{name} is idle", idle, PATIENCE_S)
    await daemon.end()
    farm.slaves.remove(daemon)
    await client.forget_slave(name)


async def test_f16_i3_i4_a_copied_state_folder_becomes_a_slave_of_its_own(tmp_path: Path) -> None:
    """It touches nothing of what the original runs, and both work side by side. Both are called the same:
    one gets another name, and they keep theirs when the master starts anew."""
    rng = levels.rng("F16-copied")
    copies = levels.count("F16-copied", ci=2, nightly=30, release=50)
    async with a_farm_at_work(tmp_path, rng, cores=2, most_s=1.0) as (farm, client, oracle):
        originals = list(farm.slaves)
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=5, frames=4))
            for number in range(copies):
                other_machine, away = bool(number % 2), rng.random() < 0.5
                original = rng.choice(originals)
                first = await at_home(client, original)
                await works(client, first.name)
                if away:
                    await kill(original)
                copy = a_copy(farm, original, number)
                if other_machine:
                    elsewhere(copy, tmp_path / f"machine{number}")
                await copy.start()
                second = await at_home(client, copy)
                if away:
                    await original.start()
                assert identity(copy) != identity(original)
                assert second.id != first.id
                assert second.name.startswith(f"{first.name}-")
                # Both at once, on frames of their own.
                assert (await at_home(client, original)).id == first.id
                if number % 2 == 0:
                    await kill(farm.master)
                    await farm.master.start()
                    assert (await at_home(client, copy)).name == second.name
                    assert (await at_home(client, original)).name == first.name
                await works(client, first.name)
                await works(client, second.name)
                await retire(farm, client, copy, second.name)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []


async def test_f16_i3_a_twin_is_refused_while_the_first_one_answers(tmp_path: Path) -> None:
    """A copied identity that nothing tells from the original; both are named, and the first works on."""
    rng = levels.rng("F16-twin")
    twins = levels.count("F16-twin", ci=1, nightly=10, release=50)
    async with a_farm_at_work(tmp_path, rng, slaves=1, cores=2) as (farm, client, oracle):
        (original,) = list(farm.slaves)
        async with trio.open_nursery() as feeding:
            feeding.start_soon(partial(oracle.feed, live=5, frames=4))
            for number in range(twins):
                twin = a_twin(farm, original, number)
                sayings = Sayings(twin, since_start=True)
                await twin.start()
                await sayings.come(f"s1 (id {(await client.slave('s1')).id}) on ")
                assert f"twin{number} on " in sayings
                assert identity(twin) == identity(original)
                before = len(oracle.lines())

                async def goes_on(lines: int = before) -> bool:
                    return len(oracle.lines()) > lines + 8

                await until("the first works on", goes_on)
                assert "linked to the master" not in sayings
                assert len(await client.slaves()) == 1
                await twin.end()
                farm.slaves.remove(twin)
            feeding.cancel_scope.cancel()
        assert await oracle.violations() == []
