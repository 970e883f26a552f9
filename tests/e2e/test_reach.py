"""Who can be reached: commands outlive a master's restart; slaves are told directly, through it, or later."""

import os
import signal
from pathlib import Path

import pytest
import trio

from drqueue.client.farm import LocalFarm
from drqueue.proto.model import LimitsChange
from tests.e2e.helpers import Cli, a_farm, until

pytestmark = pytest.mark.slow


def cli_of(farm: LocalFarm, folder: Path) -> Cli:
    """Commands for a farm."""
    return Cli(Path(farm.state_dir), folder)


async def run(cli: Cli, *words: object, status: int = 0) -> str:
    """A command's stderr and stdout, run beside this test's own tasks."""
    said = await trio.to_thread.run_sync(lambda: cli.run(*words, status=status))
    return said.err + said.out


async def test_follow_and_wait_survive_a_restart_of_the_master(tmp_path: Path) -> None:
    """kill -9 of the master, then a new one: `log --follow` misses no line and `wait` ends well."""
    gates = [tmp_path / "gate1", tmp_path / "gate2"]
    hold = " ".join(f"until test -e {gate}; do sleep 0.02; done; echo {gate.name};" for gate in gates)
    async with a_farm(tmp_path, slaves=1) as (farm, client):
        cli = cli_of(farm, tmp_path)
        job = int(await run(cli, "submit", "--", f"echo begin; {hold}"))
        progress = tmp_path / "progress"
        with cli.start("log", "--follow", job, 1) as log, cli.start("wait", job, err=progress) as wait:
            assert await trio.to_thread.run_sync(log.line) == "begin\n"

            async def waits() -> bool:
                return "1 run" in progress.read_text()

            await until("it waits", waits)
            await farm.master.end(signal.SIGKILL)
            gates[0].touch()
            # The log comes from the slave itself, master or not.
            assert await trio.to_thread.run_sync(log.line) == "gate1\n"
            await farm.master.start()
            gates[1].touch()
            logged = await trio.to_thread.run_sync(log.finish)
            waited = await trio.to_thread.run_sync(wait.finish)
        assert (logged.status, logged.out) == (0, "gate2\n"), logged.err
        assert (waited.status, waited.out) == (0, f"job {job} finished: 1 of 1 frame done\n"), waited.err
        assert len(await client.attempts(job, 1)) == 1


async def test_the_master_stands_in_where_the_slaves_socket_is_gone(tmp_path: Path) -> None:
    """It passes logs and limits on; a log is there even without the slave, limits outlive its restart."""
    gate = tmp_path / "gate"
    async with a_farm(tmp_path, slaves=1) as (farm, client):
        cli = cli_of(farm, tmp_path)
        job = int(await run(cli, "submit", "--", f"echo begin; until test -e {gate}; do sleep 0.02; done"))
        (Path(farm.slaves[0].state_dir) / "control.sock").unlink()
        with cli.start("log", "--follow", job, 1) as log:
            assert await trio.to_thread.run_sync(log.line) == "begin\n"
            gate.touch()
            assert (await trio.to_thread.run_sync(log.finish)).status == 0
        await client.wait([job])
        await run(cli, "slave", "disable", "s1")
        await run(cli, "slave", "set", "s1", "--max-cpus", 1)
        limits = (await client.slave("s1")).limits
        assert (limits.enabled, limits.max_cpus) == (False, 1)
        await farm.slaves[0].end()
        assert await run(cli, "log", job, 1) == "begin\n"
        await farm.slaves[0].start()

        async def back() -> bool:
            view = await client.slave("s1")
            return view.linked and view.limits == limits

        await until("it comes back as it was", back)


async def test_a_slave_is_told_directly_and_later(tmp_path: Path) -> None:
    """Directly even while its master hangs; what is wished while it is away is done when it comes back,
    though the master was killed meanwhile."""
    async with a_farm(tmp_path, slaves=1) as (farm, client):
        control = (await client.slave("s1")).control
        os.kill(farm.master.pid, signal.SIGSTOP)
        try:
            with trio.fail_after(10):
                await client.set_slave(control, LimitsChange(max_cpus=1))
        finally:
            os.kill(farm.master.pid, signal.SIGCONT)

        async def known() -> bool:
            return (await client.slave("s1")).limits.max_cpus == 1

        await until("the master hears of it", known)
        cli = cli_of(farm, tmp_path)
        await farm.slaves[0].end()

        async def gone() -> bool:
            return not (await client.slave("s1")).linked

        await until("it is unlinked", gone)
        said = await run(cli, "slave", "set", "s1", "--pools", "night,Default")
        assert said == "slave s1 is not linked: it is told when it comes back\n"
        await run(cli, "slave", "disable", "s1")
        await farm.master.end(signal.SIGKILL)
        await farm.master.start()
        await farm.slaves[0].start()

        async def told() -> bool:
            view = await client.slave("s1")
            return view.linked and view.limits.pools == ("night", "Default") and not view.limits.enabled

        await until("its limits are as wished", told)


async def test_forget_and_declare_dead_are_for_slaves_that_are_gone(tmp_path: Path) -> None:
    """Refused while it is linked; then its running frame goes elsewhere at once, and its name is free."""
    gate = tmp_path / "gate"
    async with a_farm(tmp_path, slaves=2) as (farm, client):
        cli = cli_of(farm, tmp_path)
        words = ("--cores", 2, "--", f"until test -e {gate}; do sleep 0.02; done")
        job = int(await run(cli, "submit", *words))

        async def runs() -> bool:
            return (await client.frames(job))[0].state == "RUNNING"

        await until("it runs", runs)
        name = (await client.frames(job))[0].slave
        assert "is linked" in await run(cli, "slave", "declare-dead", name, status=1)
        daemon = next(each for each in farm.slaves if each.name == f"slave-{name}")
        await daemon.end(signal.SIGKILL)

        async def unlinked() -> bool:
            return not (await client.slave(name)).linked

        await until("it is unlinked", unlinked)
        assert "declare it dead first" in await run(cli, "slave", "forget", name, status=1)
        await run(cli, "slave", "declare-dead", name)

        async def elsewhere() -> bool:
            (view,) = await client.frames(job)
            return view.state == "RUNNING" and view.slave != name and view.requeued == 0

        await until("it runs elsewhere", elsewhere)
        await run(cli, "slave", "forget", name)
        assert "there is no slave" in await run(cli, "slave", name, status=3)
        gate.touch()
        await client.wait([job])
        # Back again: it holds an attempt that nobody waits for, and is a new slave by its old name.
        await daemon.start()

        async def new() -> bool:
            views = await client.slaves()
            return [view.linked for view in views if view.name == name] == [True]

        await until("it is back", new)
