"""Where settings come from, which one wins, and what is said about a wrong one."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue.configuration import describe, help_of, load
from drqueue.settings import (
    Address,
    MasterSettings,
    SettingsError,
    SlaveSettings,
    master_candidates,
    parse_address,
)

HOME = {"HOME": "/home/anna"}
STATE = "/home/anna/.local/state/drqueue"


def test_defaults() -> None:
    master = load(MasterSettings, env=HOME).settings
    assert (master.state_dir, master.socket, master.socket_mode) == (STATE, f"{STATE}/master.sock", 0o600)
    assert (master.lease_s, master.keep_days, master.backup_hours) == (1800, 30, 24)
    slave = load(SlaveSettings, env=HOME, flags={"name": "s1"}).settings
    assert (slave.state_dir, slave.cores, slave.pools) == (f"{STATE}/slave-s1", None, ("Default",))


def test_the_nearest_source_wins(tmp_path: Path) -> None:
    """Default < file < environment < flag; a flag that was not given and an empty variable are nothing."""
    config = tmp_path / "m.toml"
    config.write_text("keep_days = 1\nhistory_days = 1\nlogs_keep_mb = 1\nlog_level = 'debug'\n")
    loaded = load(
        MasterSettings,
        config=str(config),
        env={**HOME, "DRQUEUE_HISTORY_DAYS": "2", "DRQUEUE_LOGS_KEEP_MB": "2", "DRQUEUE_LOG_LEVEL": ""},
        flags={"logs_keep_mb": 3, "backups_keep": None},
    )
    master = loaded.settings
    assert (master.keep_days, master.history_days, master.logs_keep_mb, master.backups_keep) == (1, 2, 3, 7)
    assert master.log_level == "debug"
    sources = [loaded.sources[key] for key in ("keep_days", "history_days", "logs_keep_mb", "backups_keep")]
    assert sources == [str(config), "DRQUEUE_HISTORY_DAYS", "flag", "default"]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CORES", "4", 4),
        ("POOLS", "A, B C,", ("A", "B", "C")),
        ("UMASK", "077", 0o077),
        ("UMASK", "0o27", 0o027),
        ("CONTROL", "off", False),
        ("CONTROL", "1", True),
        ("ENABLED", "0", False),
        ("ENABLED", "1", True),
        ("MAX_CPUS", "4", 4),
        ("GRACE_S", "2.5", 2.5),
        ("NAME", "4", "4"),
        ("TZ", "yes", "yes"),
        ("MASTER", "unix:/x", "unix:/x"),
    ],
)
def test_environment(variable: str, value: str, expected: object) -> None:
    slave = load(SlaveSettings, env={**HOME, f"DRQUEUE_{variable}": value}).settings
    assert getattr(slave, variable.lower()) == expected


def test_strange_variables_are_left_alone() -> None:
    assert load(MasterSettings, env={**HOME, "DRQUEUE_ROOT": "/x", "DRQUEUE_JOBID": "?"}).settings


def test_state_folders() -> None:
    """The variable names the master's own folder, and the one that slaves' folders are in."""
    env = {**HOME, "DRQUEUE_STATE_DIR": "/srv/farm", "DRQUEUE_NAME": "s1"}
    assert load(MasterSettings, env=env).settings.state_dir == "/srv/farm"
    slave = load(SlaveSettings, env=env)
    assert slave.settings.state_dir == "/srv/farm/slave-s1"
    assert slave.sources["state_dir"] == "DRQUEUE_STATE_DIR"
    assert load(SlaveSettings, env=env, flags={"state_dir": "/s"}).settings.state_dir == "/s"
    xdg = {"HOME": "/h", "XDG_STATE_HOME": "/xdg"}
    assert load(MasterSettings, env=xdg).settings.state_dir == "/xdg/drqueue"
    relative = {"HOME": "/h", "XDG_STATE_HOME": "xdg"}
    assert load(MasterSettings, env=relative).settings.state_dir == "/h/.local/state/drqueue"
    assert load(MasterSettings, env={}, flags={"state_dir": "d"}).settings.state_dir == str(
        Path("d").absolute()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lease = 5", "unknown key 'lease' (did you mean 'lease_s'?)"),
        ("keep_dasy = 5", "unknown key 'keep_dasy' (did you mean 'keep_days'?)"),
        ("[slave]\nx = 1", "unknown key 'slave'; the keys are address, artist_max_priority, audit_days"),
        ("lease_s = 'soon'", "lease_s must be a number from 0.01 to 31536000, not 'soon'"),
        ("lease_s = nan", "lease_s must be a number"),
        ("lease_s = inf", "lease_s must be a number"),
        ("lease_s = 0", "lease_s must be a number"),
        ("keep_days = true", "keep_days must be a whole number from 1 to 36500, not True"),
        ("keep_days = '3'", "keep_days must be a whole number"),
        ("backups_keep = 0", "backups_keep must be a whole number from 1 to 1000, not 0"),
        ("backup_hours = -1", "backup_hours must be a number from 0 to 8760, not -1"),
        ("retries = 3", "unknown key 'retries'"),
        ("socket_mode = 0o1000", "socket_mode must be permissions in octal, from 0o000 to 0o777, not 512"),
        ("log_level = 'loud'", "log_level must be one of debug, error, info, warning, not 'loud'"),
        ('state_dir = "a\\u0000b"', "state_dir must be a text"),
        ("x =", "is not TOML: "),
        ("\udcff = 1", "is not TOML: "),
        ("x = " + "[" * 100_000, "is not TOML: "),
        ("keep_days = " + "9" * 5000, "is not TOML: "),
        ("keep_days = 0x" + "f" * 5000, "keep_days must be a whole number from 1 to 36500, not such a large"),
        ("lease_s = 0x" + "f" * 5000, "lease_s must be a number from 0.01 to 31536000, not such a large"),
        ("x" * 500 + " = 1", "unknown key '" + "x" * 79 + "; the keys are "),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "m.toml"
    config.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        load(MasterSettings, config=str(config), env=HOME)
    assert str(caught.value).startswith(f"{config}: {said}")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(MasterSettings, config=str(tmp_path / "none.toml"), env=HOME)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DRQUEUE_CORES", "0", "DRQUEUE_CORES must be a whole number from 1 to 1000000000, not '0'"),
        ("DRQUEUE_CORES", "many", "DRQUEUE_CORES must be a whole number"),
        ("DRQUEUE_NAME", "../x", "DRQUEUE_NAME must be 1 to 63 letters"),
        ("DRQUEUE_NAME", "a\n", "DRQUEUE_NAME must be 1 to 63 letters"),
        ("DRQUEUE_POOLS", ",", "DRQUEUE_POOLS must be a list of 1 to 64 names"),
        ("DRQUEUE_POOLS", "a:b", "DRQUEUE_POOLS must be a list"),
        ("DRQUEUE_UMASK", "99", "DRQUEUE_UMASK must be permissions in octal"),
        ("DRQUEUE_CONTROL", "maybe", "DRQUEUE_CONTROL must be true or false, not 'maybe'"),
        ("DRQUEUE_POOLS", "\udcff", "DRQUEUE_POOLS must be a list of 1 to 64 names"),
        ("DRQUEUE_ENABLED", "\udcff", "DRQUEUE_ENABLED must be true or false"),
        ("DRQUEUE_CORES", "\udcff", "DRQUEUE_CORES must be a whole number"),
        ("DRQUEUE_MASTER", "a:b", "no master at 'a:b': a port is a number from 1 to 65535, not 'b'"),
    ],
)
def test_a_wrong_variable_is_one_sentence(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        load(SlaveSettings, env={**HOME, variable: value})


def test_a_wrong_flag_is_called_by_its_name() -> None:
    with pytest.raises(SettingsError, match="--memory-mb must be a whole number"):
        load(SlaveSettings, env=HOME, flags={"memory_mb": 0})


def test_a_mail_command_that_no_shell_would_split() -> None:
    command = "'/opt/a b/msmtp' -t"
    assert load(MasterSettings, env=HOME, flags={"mail_command": command}).settings.mail_command == command
    with pytest.raises(SettingsError, match='the mail command "msmtp \'t" cannot be read: no closing quot'):
        load(MasterSettings, env={**HOME, "DRQUEUE_MAIL_COMMAND": "msmtp 't"})


def test_values_that_do_not_go_together() -> None:
    with pytest.raises(SettingsError, match=r"silence_s \(15\) must be at least twice beat_s \(10\)"):
        load(MasterSettings, env=HOME, flags={"silence_s": 15.0})
    with pytest.raises(
        SettingsError, match=r"beat_s \(11\) must be at most 10: jobs may have leases of 30 s"
    ):
        MasterSettings(beat_s=11.0)
    with pytest.raises(SettingsError, match=r"lease_s \(29\) must be at least three times beat_s \(10\)"):
        MasterSettings(lease_s=29.0)
    MasterSettings(lease_s=3.0, beat_s=1.0)
    with pytest.raises(SettingsError, match=r"backoff_max_s \(1\) must not be below backoff_s \(5\)"):
        MasterSettings(backoff_max_s=1)


@pytest.mark.parametrize("program", [MasterSettings, SlaveSettings])
def test_every_field_says_what_it_means(program: type[MasterSettings | SlaveSettings]) -> None:
    rows = describe(load(program, env=HOME))
    assert [row.name for row in rows] == [field.name for field in msgspec.structs.fields(program)]
    assert all(row.help.endswith((".", ").")) for row in rows)
    assert all(row.source == "default" for row in rows)
    assert all(help_of(field) for field in msgspec.structs.fields(program))


def test_shown_values_can_be_typed_in_again() -> None:
    shown = {row.name: row.value for row in describe(load(SlaveSettings, env=HOME, flags={"cores": 2}))}
    assert (shown["umask"], shown["pools"], shown["control"], shown["cores"]) == (
        "0o022",
        "Default",
        "true",
        "2",
    )
    env = {f"DRQUEUE_{k.upper()}": v for k, v in shown.items() if v != "as measured" and k != "state_dir"}
    assert (
        load(SlaveSettings, env={**HOME, **env}).settings
        == load(SlaveSettings, env=HOME, flags={"cores": 2}).settings
    )


@pytest.mark.slow
@pytest.mark.parametrize("daemon", ["master", "slave"])
def test_settings_are_printed_as_a_table_until_nobody_reads(daemon: str) -> None:
    """Every setting a line, columns in line; a reader that is gone (`| head -1`) is no failure."""
    words = [sys.executable, "-m", f"drqueue.{daemon}", "--print-settings"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    program = {"master": MasterSettings, "slave": SlaveSettings}[daemon]
    assert [line.split()[0] for line in shown] == list(program.__struct_fields__)
    starts = {line.index(row.help) for line, row in zip(shown, describe(load(program)), strict=True)}
    assert len(starts) == 1
    reader, writer = os.pipe()
    os.close(reader)
    # With a buffer, as in any shell: what stays in it must not be tried again at the end.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        ended = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=env, check=False)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        MasterSettings().keep_days = 5  # type: ignore[misc]


def test_where_the_master_is_looked_for() -> None:
    local = [f"unix:{STATE}/master.sock", "unix:/run/drqueue/master.sock", "127.0.0.1:1234"]
    assert [str(a) for a in master_candidates(HOME)] == local
    assert [str(a) for a in master_candidates({**HOME, "DRQUEUE_MASTER": "localhost"})] == local
    named = master_candidates({**HOME, "DRQUEUE_STATE_DIR": "/srv/farm"})
    assert [str(a) for a in named] == ["unix:/srv/farm/master.sock", *local]
    elsewhere = {**HOME, "DRQUEUE_STATE_DIR": "/srv/farm", "DRQUEUE_MASTER": "node7:99"}
    assert master_candidates(elsewhere) == [Address("tcp", host="node7", port=99)]


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.0.1.1", "::1", "[::1]", "LOCALHOST", "vm", "VM", "vm.studio.lan", " vm "]
)
@pytest.mark.parametrize("own", ["vm", "vm.studio.lan"])
def test_a_name_of_this_machine_is_localhost(own: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is given without a port: scripts of old farms have the host's name."""
    answers_for(monkeypatch, own, {"vm.studio.lan": "127.0.1.1"})
    assert master_candidates({**HOME, "DRQUEUE_MASTER": text}) == master_candidates(HOME)


@pytest.mark.parametrize(
    "text",
    [
        "vm:1234",
        "localhost:1234",
        "127.0.0.1:1",
        "[::1]:7",
        "vm.other.org",
        "vm.nowhere",
        "vm2",
        "v",
        "128.0.0.1",
        f"vm.{'x' * 70}",
    ],
)
def test_another_machine_is_not_localhost(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_for(monkeypatch, "vm", {"vm.other.org": "192.0.2.7", "vm2": "127.0.0.1", "v": "127.0.0.1"})
    assert master_candidates({**HOME, "DRQUEUE_MASTER": text}) == [parse_address(text)]


def answers_for(monkeypatch: pytest.MonkeyPatch, own: str, known: dict[str, str]) -> None:
    """Have this machine be called `own`, and the name service know these addresses."""
    asked = socket.getaddrinfo

    def look(host: str, port: int, **how: int) -> object:
        if len(host) > 64:
            return asked(host, port, **how)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return asked(known[host], port, flags=socket.AI_NUMERICHOST, **how)

    machine = os.uname_result(("Linux", own, "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: machine)
    monkeypatch.setattr(socket, "getaddrinfo", look)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("node7", "node7", 1234),
        ("node7:1", "node7", 1),
        ("localhost:65535", "localhost", 65535),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("::1", "::1", 1234),
        ("[fe80::1%eth0]:5", "fe80::1%eth0", 5),
        ("[::1]", "::1", 1234),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert address == Address("tcp", host=host, port=port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["unix:", "unix:a\0b", "a:", "a:0", "a:65536", "a:²", "a b", "http://x", "[::1]:", "[x]:5", "a@b", ":5"],
)
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(SettingsError, match="no master at "):
        parse_address(text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    try:
        address = parse_address(text)
    except SettingsError as error:
        said = str(error)
    else:
        said = ""
        assert parse_address(str(address)) == address
    assert len(said.splitlines()) <= 1


def test_importing_is_cheap() -> None:
    """Daemons and every command pay for this module: it may not pull in parsers or event loops."""
    code = (
        "import sys; before = set(sys.modules); import drqueue.settings, drqueue.log, drqueue.sdnotify;"
        "print(*(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "msgspec" in loaded
    assert not {"tomllib", "trio", "difflib", "asyncio", "click", "rich", "email", "subprocess"} & set(loaded)
