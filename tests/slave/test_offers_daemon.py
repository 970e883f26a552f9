"""The slave daemon with what it offers: told to its master, handed to real processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from drqueue.proto.link_messages import LogKept
from drqueue.proto.messages import GetSlave, SlaveInfo
from drqueue.proto.model import Gpu, Offers
from drqueue.settings import SettingsError
from drqueue.slave import machine
from tests.slave.scripted_master import MasterLink, ScriptedMaster
from tests.slave.test_daemon import a_daemon, an_order, until
from tests.slave.test_machine import FakeNvml

pytestmark = pytest.mark.slow

SAID = (
    "DRQUEUE_GPUS CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES CUDA_DEVICE_ORDER DRQUEUE_AMOUNTS DRQUEUE_THREADS"
)


class TwoCards(FakeNvml):
    """Two GPUs that both work."""

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"


@pytest.fixture
def master(tmp_path: Path) -> Iterator[ScriptedMaster]:
    """A master that listens."""
    made = ScriptedMaster(str(tmp_path / "m.sock"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has two."""
    monkeypatch.setattr(machine, "_load_nvml", TwoCards)


async def said(link: MasterLink, frame: int, **fields: object) -> list[str]:
    """What an attempt finds in its environment: SAID, `unset` for what is not there."""
    words = " ".join(f'"${{{name}-unset}}"' for name in SAID.split())
    order = an_order(frame, shell=f"printf '%s\\n' {words}", **fields)
    link.order(order)
    ended = await link.hear_exit(order.key)
    assert (ended.exit.code, ended.exit.reason) == (0, "")
    kept = await link.hear(LogKept)
    assert isinstance(kept, LogKept)
    return kept.ends.head.decode().splitlines()


async def test_what_it_offers_is_told_and_what_an_attempt_owns_is_its(
    tmp_path: Path, master: ScriptedMaster
) -> None:
    offered = {"amounts": {"seats": 2, "ram": 0.5}, "tags": ("ssd",), "attributes": {"rack": "12"}}
    async with a_daemon(tmp_path / "s", master, **offered) as daemon, master.link() as link:
        hello = await link.register()
        assert hello.machine.gpus == (Gpu(0, "Card", 8192, "GPU-0"), Gpu(1, "Card", 8192, "GPU-1"))
        free_mb = shutil.disk_usage(tmp_path).free >> 20
        assert abs(hello.offers.disk_mb - free_mb) <= max(1024, free_mb // 10)
        assert hello.offers == Offers(gpus=(0, 1), disk_mb=hello.offers.disk_mb, **offered)
        assert daemon.view().offers == hello.offers
        env = {"CUDA_VISIBLE_DEVICES": "0", "DRQUEUE_GPUS": "0", "DRQUEUE_AMOUNTS": "all"}
        owner = await said(link, 1, gpus=(1,), cores=2.5, amounts={"seats": 1, "ram": 0.5}, env=env)
        assert owner == ["1", "1", "1", "PCI_BUS_ID", "seats=1,ram=0.5", "2"]
        assert await said(link, 2, cores=0.5) == ["", "unset", "unset", "unset", "", "1"]


async def test_two_attempts_never_have_one_gpu(tmp_path: Path, master: ScriptedMaster) -> None:
    """The second was sent ahead: it begins when the first one's process is gone."""
    gate = tmp_path / "gate"
    first = an_order(1, shell=f"until test -e {gate}; do sleep 0.01; done", gpus=(0,))
    second = an_order(2, shell=f"test -e {gate}", gpus=(0,))
    third = an_order(3, shell="true")
    async with a_daemon(tmp_path / "s", master) as daemon, master.link() as link:
        await link.register()
        link.order(first, second, third)
        await link.hear_exit(third.key)
        view = daemon.view()
        assert (view.gpus_used, {frame.number for frame in view.running}) == ((0,), {1, 2})
        gate.touch()
        assert (await link.hear_exit(second.key)).exit.code == 0
        await until(lambda: daemon.view().gpus_used == ())


async def test_some_of_its_gpus_and_no_disk(tmp_path: Path, master: ScriptedMaster) -> None:
    async with a_daemon(tmp_path / "s", master, gpus=(1,), disk_mb=0), master.link() as link:
        assert (await link.register()).offers == Offers(gpus=(1,))
        link.channel.send(GetSlave(rq=1))
        info = await link.hear(SlaveInfo)
        assert isinstance(info, SlaveInfo)
        assert (info.slave.offers, info.slave.gpus_used) == (Offers(gpus=(1,)), ())


async def test_a_gpu_that_is_not_there(tmp_path: Path, master: ScriptedMaster) -> None:
    with pytest.raises(SettingsError, match="gpus: this machine has no GPU 2: its GPUs are 0, 1"):
        async with a_daemon(tmp_path / "s", master, gpus=(0, 2)):
            pass  # it must not come so far
    async with a_daemon(tmp_path / "s", master, gpus="none"), master.link() as link:
        assert (await link.register()).offers.gpus == ()
