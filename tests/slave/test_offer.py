"""What a slave brings to the farm: from its settings and from what was measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drqueue.proto.model import Gpu, MachineInfo, Offers
from drqueue.settings import SettingsError, SlaveSettings
from drqueue.slave.machine import disk_free_mb
from drqueue.slave.offer import offer_of

MACHINE = MachineInfo(
    hostname="h",
    os="linux",
    cores_logical=8,
    memory_mb=4000,
    gpus=(Gpu(0, "Card", 8192), Gpu(2, "Card", 8192)),
)


def test_what_is_not_set_is_as_measured() -> None:
    offer = offer_of(SlaveSettings(name="s"), MACHINE, 700)
    assert (offer.cores, offer.memory_mb, offer.offers) == (8, 4000, Offers(gpus=(0, 2), disk_mb=700))
    assert offer_of(SlaveSettings(name="s"), MachineInfo(hostname="h", os="linux"), 0).offers == Offers()


def test_what_is_set_is_offered() -> None:
    settings = SlaveSettings(
        name="s",
        gpus=(2,),
        disk_mb=0,
        amounts={"seats": 1.5},
        tags=("ssd",),
        attributes={"rack": "12"},
    )
    assert offer_of(settings, MACHINE, 700).offers == Offers(
        gpus=(2,), disk_mb=0, amounts={"seats": 1.5}, tags=("ssd",), attributes={"rack": "12"}
    )
    assert offer_of(SlaveSettings(name="s", gpus="none"), MACHINE, 0).offers.gpus == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gpus": (0, 1)}, "gpus: this machine has no GPU 1: its GPUs are 0, 2"),
        ({"attributes": {"Host": "x"}}, "attributes cannot hold 'Host': every slave has that of its own"),
        ({"attributes": {"in": "x"}}, "attributes cannot hold 'in'"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        offer_of(SlaveSettings(name="s", **settings), MACHINE, 0)  # type: ignore[arg-type]
    assert str(caught.value).startswith(said)


def test_room_where_nothing_is_yet(tmp_path: Path) -> None:
    """The scratch folder may be made later: what counts is the disk that it will lie on."""
    info = os.statvfs(tmp_path)
    free = info.f_bavail * info.f_frsize // 2**20
    assert abs(disk_free_mb(str(tmp_path / "a" / "b")) - free) <= max(1024, free // 10)
    assert disk_free_mb("/proc/none") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--gpus", "17"), "gpus: this machine has no GPU 17: "),
        (("--amounts", "seats=-1"), "--amounts must have a number for seats, not '-1'"),
        (("--tags", "a", "--tags", "b/c"), "--tags cannot hold 'b/c'"),
        (("--attributes", "os=linux"), "attributes cannot hold 'os'"),
    ],
)
def test_the_program_says_so_and_ends_with_2(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    argv = [sys.executable, "-m", "drqueue.slave", "--state-dir", str(tmp_path / "s"), *flags]
    env = {**os.environ, "DRQUEUE_RUN_AS": "self"}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"drqueue-slave: {said}")
    assert len(ended.stderr.splitlines()) == 1
