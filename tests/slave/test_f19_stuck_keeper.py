"""F19: a keeper that no KILL ends is said by the slave's view and by the doctor, not by its log alone."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.client.cli.slaves import _sickness
from drqueue.slave import keeper_health
from drqueue.slave.supervisor import STUCK
from tests.slave.lives import a_life, keeper_of
from tests.slave.scripted_master import ScriptedMaster
from tests.slave.test_daemon import an_order, until

pytestmark = pytest.mark.slow


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


async def test_f19_a_stuck_keeper_is_told_while_it_is_stuck(
    tmp_path: Path, master: ScriptedMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "s"
    async with a_life(state, master) as daemon, master.link() as link:
        await link.register()
        link.order(order := an_order(argv=("sleep", "1000")))
        await link.hear_start(order.key)
        assert (daemon.view().state, daemon.view().sick) == ("busy", "")
    keeper = keeper_of(state)
    os.kill(keeper, signal.SIGSTOP)
    # As if it slept in the kernel.
    monkeypatch.setattr(keeper_health, "end_keeper", lambda *arguments: None)
    monkeypatch.setattr(keeper_health, "GREETING_S", 0.3)
    monkeypatch.setattr(keeper_health, "GONE_S", 0.2)
    async with a_life(state, master) as daemon, master.link() as link:
        await link.register()
        view = daemon.view()
        assert (view.state, view.sick, len(view.running)) == ("sick", STUCK, 1)
        assert STUCK in _sickness(view)
        (found,) = [finding for finding in await daemon._examine() if finding.what == "keeper"]
        assert (found.state, found.text) == ("bad", STUCK)
        assert found.advice
        monkeypatch.setattr(keeper_health, "GREETING_S", 30.0)
        os.kill(keeper, signal.SIGKILL)
        await until(lambda: not daemon.view().sick)
        assert daemon.view().state == "busy"
        assert not [finding for finding in await daemon._examine() if finding.what == "keeper"]
        await daemon._supervisor.shutdown()
