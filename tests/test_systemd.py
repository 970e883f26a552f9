"""The units load, are as closed as promised, and keep frames and their files alive."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parent.parent / "systemd"
UNITS = ("drqueue-master", "drqueue-slave")


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The units with a program that exists here, since `verify` looks for it."""
    paths = {}
    for name in UNITS:
        text = (SYSTEMD / f"{name}.service").read_text()
        assert f"ExecStart=/usr/bin/{name} --state-dir /var/lib/{name} $OPTIONS\n" in text
        paths[name] = tmp_path / f"{name}.service"
        paths[name].write_text(text.replace(f"/usr/bin/{name}", "/bin/true"))
    return paths


def service(name: str) -> configparser.SectionProxy:
    """A unit's [Service] section; of a key that stands there twice, the last."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SYSTEMD / f"{name}.service")
    return parser["Service"]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", UNITS)
def test_units_verify(name: str, units: dict[str, Path]) -> None:
    """Exit status 0 comes with warnings about unknown keys too, so nothing at all may be said of our file."""
    assert name not in run("systemd-analyze", "verify", units[name])


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(("name", "threshold"), [("drqueue-master", 15), ("drqueue-slave", 40)])
def test_units_are_closed(name: str, threshold: int, units: dict[str, Path]) -> None:
    """The threshold is ten times what is printed."""
    run("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={threshold}", units[name])


def test_frames_outlive_the_slave() -> None:
    slave = service("drqueue-slave")
    assert (slave["KillMode"], slave["OOMPolicy"], slave["Delegate"]) == ("process", "continue", "yes")
    assert slave["TasksMax"] == "infinity"
    for taken in ("PrivateTmp", "RemoveIPC", "RuntimeDirectory", "DynamicUser"):
        assert taken not in slave, f"{taken}= takes files away from running frames"
    for taken in ("ProtectClock", "PrivateDevices", "DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute"):
        assert taken not in slave, f"{taken}= takes GPUs or compilers away from frames"


@pytest.mark.parametrize("name", UNITS)
def test_daemons_are_watched_and_restarted(name: str) -> None:
    unit = service(name)
    assert (unit["Type"], unit["Restart"], unit["RestartPreventExitStatus"]) == ("notify", "on-failure", "2")
    assert int(unit["WatchdogSec"]) > 0


def test_master_sees_who_calls() -> None:
    """From a user namespace of its own it would see every caller as nobody."""
    master = service("drqueue-master")
    assert "PrivateUsers" not in master
    assert "DRQUEUE_SOCKET=/run/drqueue/master.sock" in master["Environment"].split()
    assert (master["RuntimeDirectory"], master["RuntimeDirectoryMode"], master["Group"]) == (
        "drqueue",
        "0750",
        "drqueue",
    )


@pytest.mark.needs("systemd-sysusers")
def test_sysusers_make_the_units_users(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/sysusers.d"
    folder.mkdir(parents=True)
    (folder / "drqueue.conf").write_text((SYSTEMD / "sysusers.d/drqueue.conf").read_text())
    said = run("systemd-sysusers", f"--root={tmp_path}", "--dry-run")
    for name in UNITS:
        unit = service(name)
        assert f"Creating user '{unit['User']}'" in said
        assert f"Creating group '{unit['Group']}'" in said
    also = service("drqueue-slave")["SupplementaryGroups"]
    assert f"Creating group '{also}'" in said
    lines = (SYSTEMD / "sysusers.d/drqueue.conf").read_text().splitlines()
    assert ["m", "drqueue-slave", also] in [line.split() for line in lines]


def test_tmpfiles_make_what_the_units_expect() -> None:
    """Every line: type, path, mode, user, group, age; frames' HOME is the one that sysusers names."""
    lines = [line.split() for line in (SYSTEMD / "tmpfiles.d/drqueue.conf").read_text().splitlines()]
    rows = {
        path: (kind, mode, user, group)
        for kind, path, mode, user, group, _ in (x for x in lines if x[0] != "#")
    }
    assert rows["/etc/drqueue"] == ("d", "0755", "root", "root")
    own = ("d", "0700", "drqueue-slave", "drqueue-slave")
    home = re.search(
        r"^u +drqueue-slave .* (/\S+)$", (SYSTEMD / "sysusers.d/drqueue.conf").read_text(), re.MULTILINE
    )
    assert home
    assert rows["/var/lib/drqueue-slave"] == rows[home[1]] == own
