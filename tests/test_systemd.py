"""The units load, are as closed as promised, and keep frames and their files alive."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from drqueue.configuration import load
from drqueue.settings import MasterSettings, SlaveSettings
from drqueue.slave import cgroups

SYSTEMD = Path(__file__).parent.parent / "systemd"
UNITS = ("drqueue-master", "drqueue-slave")
SOCKET = "drqueue-master.socket"
DROP_IN = Path("drqueue-slave.service.d/single-user.conf")
LIMITS = Path("drqueue-slave.service.d/limits.conf")
RIGHTS = "CAP_SETUID CAP_SETGID CAP_KILL"


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The units with a program that exists here, since `verify` looks for it; the drop-in lies aside."""
    paths = {}
    for name in UNITS:
        text = (SYSTEMD / f"{name}.service").read_text()
        assert f"ExecStart=/usr/bin/{name} --state-dir /var/lib/{name} $OPTIONS\n" in text
        paths[name] = tmp_path / f"{name}.service"
        paths[name].write_text(text.replace(f"/usr/bin/{name}", "/bin/true"))
    paths[SOCKET] = tmp_path / SOCKET
    paths[SOCKET].write_text((SYSTEMD / SOCKET).read_text())
    return paths


def with_drop_in(units: dict[str, Path], drop_in: Path = DROP_IN) -> None:
    """Have the slave's unit read a drop-in of its."""
    folder = units["drqueue-slave"].parent / drop_in.parent
    folder.mkdir()
    (folder / drop_in.name).write_text((SYSTEMD / drop_in).read_text())


def service(name: str) -> configparser.SectionProxy:
    """A unit's [Service] section; of a key that stands there twice, the last."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SYSTEMD / f"{name}.service")
    return parser["Service"]


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", [*UNITS, SOCKET, "single user", "limits"])
def test_units_verify(name: str, units: dict[str, Path]) -> None:
    """Exit status 0 comes with warnings about unknown keys too, so nothing may be said of our files."""
    if name == "single user":
        with_drop_in(units)
        name = "drqueue-slave"
    if name == "limits":
        with_drop_in(units, LIMITS)
        name = "drqueue-slave"
        said = run("systemd-analyze", "verify", units[name])
        # Before 254 that is all that systemd makes of it.
        assert all("DelegateSubgroup" in line for line in said.splitlines() if "drqueue-" in line), said
        return
    assert "drqueue-" not in run("systemd-analyze", "verify", units[name])


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(
    ("name", "single_user", "threshold"),
    [("drqueue-master", False, 15), ("drqueue-slave", False, 42), ("drqueue-slave", True, 40)],
)
def test_units_are_closed(name: str, single_user: bool, threshold: int, units: dict[str, Path]) -> None:
    """The threshold is ten times what is printed."""
    if single_user:
        with_drop_in(units)
    run("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={threshold}", units[name])


#: What closes each unit. A value of its own stands behind =, all others are "yes".
CLOSED = {
    "drqueue-master": "CapabilityBoundingSet= NoNewPrivileges ProtectSystem=strict ProtectHome PrivateTmp "
    "PrivateDevices DevicePolicy=closed ProtectHostname ProtectClock ProtectKernelTunables "
    "ProtectKernelModules ProtectKernelLogs ProtectControlGroups ProtectProc=invisible RestrictNamespaces "
    "RestrictRealtime RestrictSUIDSGID LockPersonality MemoryDenyWriteExecute RemoveIPC KeyringMode=private "
    "SystemCallArchitectures=native LimitCORE=0 StateDirectoryMode=0700 UMask=0077",
    "drqueue-slave": "NoNewPrivileges ProtectSystem=full PrivateMounts ProtectHostname ProtectKernelTunables "
    "ProtectKernelModules ProtectKernelLogs RestrictRealtime RestrictSUIDSGID LockPersonality "
    "KeyringMode=private SystemCallArchitectures=native StateDirectoryMode=0700 UMask=0077",
}
FILTERS = {
    "drqueue-master": ["@system-service", "~@privileged @resources"],
    "drqueue-slave": ["~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap"],
}


@pytest.mark.parametrize("name", UNITS)
def test_nothing_that_closes_a_unit_goes_unnoticed(name: str) -> None:
    """One line less is too little for the threshold, and secrets lie in files of these modes."""
    unit = service(name)
    for word in CLOSED[name].split():
        key, own, value = word.partition("=")
        assert unit.get(key) == (value if own else "yes"), key
    assert ("AmbientCapabilities" in unit) == (name == "drqueue-slave")
    families = {"AF_UNIX", "AF_INET", "AF_INET6"} | ({"AF_NETLINK"} if name == "drqueue-slave" else set())
    assert set(unit["RestrictAddressFamilies"].split()) == families
    filters = re.findall(r"^SystemCallFilter=(.*)$", (SYSTEMD / f"{name}.service").read_text(), re.MULTILINE)
    assert filters == FILTERS[name]


@pytest.mark.needs("systemd-analyze")
def test_the_drop_in_takes_the_rights_away(units: dict[str, Path]) -> None:
    """What systemd itself makes of both files: no right is left, and it rates them better."""

    def rights() -> str:
        said = run("systemd-analyze", "security", "--no-pager", "--offline=yes", units["drqueue-slave"])
        return "".join(line[0] for line in said.splitlines() if "CAP_KILL" in line or "SET(UID" in line)

    assert rights() == "✗✗"
    with_drop_in(units)
    assert rights() == "✓✓"


def test_frames_of_the_slaves_unit_are_another_users() -> None:
    """Its rights, all of them ambient, and no others; the scratch folder that tmpfiles.d makes."""
    slave = service("drqueue-slave")
    assert slave["AmbientCapabilities"] == slave["CapabilityBoundingSet"] == RIGHTS
    assert slave["NoNewPrivileges"] == "yes"
    assert slave["Environment"] == "DRQUEUE_WORK_DIR=/var/lib/drqueue-slave-work"
    assert "PrivateUsers" not in slave
    # What would hide the frames of other users from the slave.
    assert "ProtectProc" not in slave
    lines = (SYSTEMD / DROP_IN).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "[Service]",
        "Environment=DRQUEUE_RUN_AS=self DRQUEUE_WORK_DIR=",
        "AmbientCapabilities=",
        "CapabilityBoundingSet=",
    ]


def test_frames_get_limits_by_a_group_below() -> None:
    """The unit's own group hands controllers down only where no daemon is ever started in it."""
    lines = [line for line in (SYSTEMD / LIMITS).read_text().splitlines() if not line.startswith("#")]
    assert lines == ["[Service]", f"DelegateSubgroup={cgroups.AGENT}"]
    assert service("drqueue-slave")["Delegate"] == "yes"
    assert "DelegateSubgroup" not in service("drqueue-slave")


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
    assert master["Environment"].split() == [
        "DRQUEUE_SOCKET=/run/drqueue/master.sock",
        "DRQUEUE_LOCAL_ROLES=drqueue-slave=node",
    ]


def test_the_socket_is_systemds() -> None:
    """One path for all, the group's to use, and no folder that goes when the master stops."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SYSTEMD / SOCKET)
    socket = parser["Socket"]
    assert (socket["ListenStream"], socket["FileDescriptorName"]) == ("/run/drqueue/master.sock", "master")
    assert (socket["SocketMode"], socket["SocketGroup"], socket["SocketUser"]) == ("0660", "drqueue", "root")
    assert "RuntimeDirectory" not in service("drqueue-master")
    text = (SYSTEMD / "drqueue-master.service").read_text()
    assert f"\nRequires={SOCKET}\n" in text
    assert f"\nAlso={SOCKET}\n" in text


def test_the_settings_in_the_units_are_settings() -> None:
    """Environment= of units and drop-in, read as the daemons do."""
    master = dict(pair.split("=", 1) for pair in service("drqueue-master")["Environment"].split())
    assert load(MasterSettings, env=master).settings.local_roles == ("drqueue-slave=node",)
    slave = dict(pair.split("=", 1) for pair in service("drqueue-slave")["Environment"].split())
    assert load(SlaveSettings, env=slave).settings.work_dir == "/var/lib/drqueue-slave-work"
    single = {"DRQUEUE_RUN_AS": "self", "DRQUEUE_WORK_DIR": ""}
    settings = load(SlaveSettings, env={**slave, **single}).settings
    assert (settings.run_as, settings.work_dir) == ("self", "")


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
    assert "Creating user 'render'" in said
    assert "Creating group 'drqueue'" in said
    lines = [line.split() for line in (SYSTEMD / "sysusers.d/drqueue.conf").read_text().splitlines()]
    # The slave reaches the master's socket, its frames do not.
    assert [line for line in lines if line[0] == "m"] == [["m", "drqueue-slave", "drqueue"]]


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
    assert rows["/var/lib/drqueue-slave-work"] == ("d", "1777", "drqueue-slave", "drqueue-slave")
    home = re.search(
        r"^u +render .* (/\S+)$", (SYSTEMD / "sysusers.d/drqueue.conf").read_text(), re.MULTILINE
    )
    assert home
    assert rows[home[1]] == ("d", "0700", "render", "render")
    assert rows["/run/drqueue"] == ("d", "0755", "root", "root")
