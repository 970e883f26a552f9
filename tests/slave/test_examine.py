"""What a slave says about itself when it is examined."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from drqueue import __version__, checkup
from drqueue.access import Access, write_access
from drqueue.proto.model import Gpu, Offers
from drqueue.proto.views import Finding
from drqueue.settings import SlaveSettings
from drqueue.slave import cgroups
from drqueue.slave.examine import examine
from tests.test_checkup import CERTIFICATE, KEY, PIN, a_certificate

MASTER = "10.0.0.1:1234"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


def joined(folder: Path, **changed: Any) -> Path:
    """The state directory with a way into the farm."""
    given: dict[str, Any] = {
        "host": "10.0.0.1", "port": 1234, "pin": PIN, "farm": "f", "account": "a", "name": "n1",
        "role": "node", "secret": "verysecret", "certificate": CERTIFICATE, "key": KEY,
    }  # fmt: skip
    write_access(str(folder / "access.json"), [Access(**{**given, **changed})])
    return folder


async def found(folder: Path, *, set_to: dict[str, Any] | None = None, **known: Any) -> dict[str, Finding]:
    """The findings by what they are about, of a slave that is linked over the network; "clock" against it."""
    given: dict[str, Any] = {
        "master": MASTER,
        "farm": "f00d",
        "master_software": f"drqueue {__version__}",
        "linked": True,
        "heard_ago_s": 3.0,
        "master_clock": time.time(),
        "control": "10.0.0.2:2345",
        "frames_as": "render",
    }
    settings = SlaveSettings(state_dir=str(folder), name="n1", **(set_to or {}))
    findings = await examine(settings, **{**given, **known})
    assert all(finding.advice for finding in findings if finding.state == "bad"), findings
    return {finding.what: finding for finding in reversed(findings)}


async def test_a_slave_that_is_well(folder: Path) -> None:
    findings = await found(joined(folder))
    of_the_machine = ("clock", "open files", "disk", "cgroup")
    states = {what: finding.state for what, finding in findings.items() if what not in of_the_machine}
    assert set(states.values()) == {"ok"}, findings
    assert set(findings) == {
        "master", "software", "clock", "state directory", "access", "disk", "open files", "cgroup",
        "frames' user", "control port",
    }  # fmt: skip
    assert "n1" in findings["access"].text
    assert "verysecret" not in str(findings)


async def test_without_a_link(folder: Path) -> None:
    findings = await found(joined(folder), linked=False, master_software="")
    assert (findings["master"].state, MASTER in findings["master"].text) == ("bad", True)
    assert "software" not in findings


async def test_a_master_that_is_silent(folder: Path) -> None:
    assert (await found(joined(folder), heard_ago_s=61))["master"].state == "warn"


async def test_the_masters_clock(folder: Path) -> None:
    joined(folder)
    findings = await examine(
        SlaveSettings(state_dir=str(folder), name="n1"), linked=True, master_clock=time.time() + 100
    )
    clocks = [finding for finding in findings if finding.what == "clock"]
    assert [clocks[0].state, "behind the master" in clocks[0].text] == ["bad", True]
    unknown = await examine(SlaveSettings(state_dir=str(folder), name="n1"), linked=True)
    assert sum(finding.what == "clock" for finding in unknown) == 1


async def test_what_it_got_in_by(folder: Path) -> None:
    assert (await found(folder))["access"].state == "bad"
    assert (await found(folder, master="unix:/s"))["access"].state == "ok"
    (joined(folder) / "access.json").chmod(0o644)
    findings = await found(folder)
    assert (findings["access"].state, findings["state directory"].state) == ("bad", "bad")
    assert findings["access"].advice == f"chmod 600 {folder}/access.json"
    (folder / "access.json").chmod(0o600)
    (folder / "access.json").write_text("{")
    assert (await found(folder))["access"].state == "bad"


async def test_a_certificate_of_its_port_that_does_not_fit(folder: Path) -> None:
    assert (await found(joined(folder, key=a_certificate()[1])))["access"].state == "bad"
    # A slave without a port of its own has none.
    assert (await found(joined(folder, certificate="", key="")))["access"].state == "ok"


async def test_its_control_port(folder: Path) -> None:
    joined(folder)
    assert "10.0.0.2:2345" in (await found(folder))["control port"].text
    assert (await found(folder, control=""))["control port"].state == "warn"
    assert (await found(folder, control="", set_to={"control": False}))["control port"].state == "ok"
    assert "this machine only" in (await found(folder, control="unix:/c"))["control port"].text


async def test_whom_frames_run_as(folder: Path) -> None:
    assert (await found(joined(folder), frames_as=None))["frames' user"].state == "warn"


OWN = cgroups.Place("/sys/fs/cgroup/a.service", False)
BESIDE = cgroups.Place("/sys/fs/cgroup/a.service", True)
NONE = cgroups.Place("", False, "/a is not delegated to it")
HOME = "/sys/fs/cgroup/b.service/drqueue-1-2"


@pytest.mark.parametrize(
    ("place", "noted", "set_to", "state", "words"),
    [
        (OWN, None, {}, "ok", ["below /sys/fs/cgroup/a.service,", "limits: none"]),
        (BESIDE, None, {"memory_limit": True}, "ok", ["limits: memory and pids"]),
        (NONE, None, {}, "warn", ["not delegated", "one by one"]),
        # What its keeper found counts for more than what would be found now.
        (NONE, (HOME, "pids"), {}, "ok", ["below /sys/fs/cgroup/b.service,", "limits: pids"]),
        (OWN, ("", "this kernel cannot kill a group"), {}, "warn", ["this kernel", "one by one"]),
        (OWN, (HOME, ""), {"memory_limit": True}, "warn", ["nothing holds its memory"]),
        (OWN, (HOME, "memory pids"), {"cgroups": "off"}, "ok", ["off by its settings", "one by one"]),
    ],
)
async def test_how_frames_trees_end(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: cgroups.Place,
    noted: tuple[str, str] | None,
    set_to: dict[str, Any],
    state: str,
    words: list[str],
) -> None:
    monkeypatch.setattr(cgroups, "place", lambda: place)
    if noted is not None:
        (folder / cgroups.NOTE).write_text("\n".join((*noted, "")))
    finding = (await found(joined(folder), set_to=set_to))["cgroup"]
    assert finding.state == state, finding
    assert all(word in finding.text for word in words), finding
    assert bool(finding.advice) == (state == "warn")


async def test_the_disks_that_frames_use(folder: Path, tmp_path: Path) -> None:
    findings = await found(
        joined(folder), work_dir=str(tmp_path), set_to={"logs": str(tmp_path / "not" / "mounted")}
    )
    assert str(tmp_path) in findings["scratch disk"].text
    assert findings["log copies"].state == "bad"


async def test_its_gpus(folder: Path) -> None:
    assert "GPUs" not in await found(joined(folder))
    assert (await found(joined(folder), gpu_driver=True))["GPUs"].state == "warn"
    gpus = (Gpu(0, "Card", 8192), Gpu(1, "Other", 8192))
    finding = (await found(joined(folder), gpu_driver=True, gpus=gpus, offers=Offers(gpus=(1,))))["GPUs"]
    assert (finding.state, finding.text) == ("ok", "offers 1 of 2: 1 Other")


@pytest.mark.parametrize(("left_mb", "state"), [(0, "ok"), (10**9, "warn")])
async def test_more_disk_than_there_is(folder: Path, left_mb: int, state: str) -> None:
    """Where it was measured, it says nothing: others may fill it at any time."""
    assert "offered disk" not in await found(joined(folder), disk_left_mb=left_mb)
    findings = await found(joined(folder), set_to={"disk_mb": 10**9}, disk_left_mb=left_mb)
    assert findings["offered disk"].state == state


async def test_a_share_that_hangs_is_told_in_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    real = checkup.disk_room

    def disk_room(what: str, path: str) -> Finding:
        if what == "log copies":
            release.wait()
        return real(what, path)

    monkeypatch.setattr(checkup, "disk_room", disk_room)
    monkeypatch.setattr(checkup.looked, "__defaults__", (0.2,))
    try:
        findings = await found(joined(folder), set_to={"logs": str(tmp_path)})
    finally:
        release.set()
    assert (findings["log copies"].state, findings["state directory"].state) == ("bad", "ok")
