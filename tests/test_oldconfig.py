"""Files and variables of DrQueue 0.x: what they say, where they are looked for, what people are told."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from drqueue import oldconfig
from drqueue.configuration import load
from drqueue.oldconfig import OldFile, fields, is_old, note, parse, places, pools
from drqueue.proto.model import SlaveLimits
from drqueue.settings import Address, MasterSettings, SettingsError, SlaveSettings
from drqueue.slave.daemon import Daemon
from drqueue.slave.identity import save_limits
from tests.slave.scripted_master import ScriptedMaster

HOME = {"HOME": "/home/anna"}
FILE = """\
# a slave of ours
root=/opt/drqueue
logs=/mnt/farm/logs

tmp=/mnt/farm/tmp
db=
bin=/old
bin=/opt/drqueue/bin # not a comment
pool=maya,night:Default
"""


# -- what a file says -----------------------------------------------------------------------------------


def test_a_file() -> None:
    """The last of two lines counts, a line without a value sets nothing, a comment takes a whole line."""
    file = parse("slave.conf", FILE)
    assert file == OldFile(
        "slave.conf",
        {
            "root": "/opt/drqueue",
            "logs": "/mnt/farm/logs",
            "tmp": "/mnt/farm/tmp",
            "bin": "/opt/drqueue/bin # not a comment",
            "pool": "maya,night:Default",
        },
    )
    assert fields(file)["pools"] == ("pool", ("maya", "night", "Default"))
    assert fields(file)["logs"] == ("logs", "/mnt/farm/logs")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\n \n#x=1\n  # logs=/y\n", {}),
        ("logs=/a=b", {"logs": "/a=b"}),
        ('logs="/a b"', {"logs": '"/a b"'}),
        ("logs=/a\r\ntmp=/b\r\n", {"logs": "/a", "tmp": "/b"}),
        ("etc=/é", {"etc": "/é"}),
        ("db=/x\ndb=", {}),
    ],
)
def test_lines(text: str, values: dict[str, str]) -> None:
    assert parse("f", text).values == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logs=/a\nlog=/b", "f.conf: line 2: unknown key 'log'; a file called *.conf is one of DrQueue 0.x,"),
        ("POOL=x", "f.conf: line 1: unknown key 'POOL'; "),
        ("keep_days = 3", "whose keys are root, logs, tmp, bin, etc, db, pool; settings of today stand in"),
        ("=x", "f.conf: line 1: unknown key ''; "),
        ("[slave]", "f.conf: line 1: '[slave]' is not KEY=VALUE"),
        ("logs =/a", "f.conf: line 1: no blanks may stand around the equals sign of 'logs'"),
        ("#\nlogs= /a", "f.conf: line 2: no blanks may stand around the equals sign of 'logs'"),
        ("tmp=/a\x00b", "f.conf: line 1: 'tmp' holds a control character"),
        ("tmp=/a\x1b[1mb", "f.conf: line 1: 'tmp' holds a control character"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_one_sentence_with_its_number(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse("f.conf", text)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_file_or_a_sentence(text: str) -> None:
    try:
        said, file = "", parse("f", text)
    except ValueError as error:
        said, file = str(error), OldFile("f", {})
    assert len(said.split("\n")) == 1
    assert set(file.values) <= set(oldconfig.KEYS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A", ("A",)),
        ("A:B,C=D E\nF\tG", ("A", "B", "C", "D", "E", "F", "G")),
        (" :A,,B: ", ("A", "B")),
        ("A,B,A", ("A", "B")),
        (":", ()),
    ],
)
def test_pools_have_many_separators(text: str, names: tuple[str, ...]) -> None:
    assert pools(text) == names


def test_only_conf_files_are_old() -> None:
    assert [is_old(path) for path in ("/etc/x.conf", "x.toml", "conf", "x.conf.toml", "/dev/null")] == [
        True, False, False, False, False,
    ]  # fmt: skip


# -- as settings ------------------------------------------------------------------------------------------


def written(folder: Path, text: str = FILE, name: str = "slave.conf") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_slave_takes_its_values(tmp_path: Path) -> None:
    config = written(tmp_path)
    loaded = load(SlaveSettings, config=config, env=HOME)
    slave = loaded.settings
    assert (slave.pools, slave.logs, slave.tmp) == (
        ("maya", "night", "Default"), "/mnt/farm/logs", "/mnt/farm/tmp",
    )  # fmt: skip
    assert (slave.root, slave.bin, slave.db) == ("/opt/drqueue", "/opt/drqueue/bin # not a comment", "")
    assert (loaded.sources["pools"], loaded.sources["logs"], loaded.sources["db"]) == (
        config,
        config,
        "default",
    )
    assert len(loaded.notes) == 1


def test_the_environment_and_flags_win_over_it(tmp_path: Path) -> None:
    loaded = load(
        SlaveSettings,
        config=written(tmp_path),
        env={**HOME, "DRQUEUE_POOL": "A", "DRQUEUE_LOGS": "/env"},
        flags={"name": "x"},
    )
    assert (loaded.settings.pools, loaded.settings.logs, loaded.settings.name) == (("A",), "/env", "x")
    assert (loaded.sources["pools"], loaded.sources["tmp"]) == ("DRQUEUE_POOL", str(tmp_path / "slave.conf"))


def test_a_master_notes_it_and_takes_nothing(tmp_path: Path) -> None:
    config = written(tmp_path, "logs=/l\ndb=/d\npool=A\n", "master.conf")
    loaded = load(MasterSettings, config=config, env=HOME)
    assert loaded.settings == load(MasterSettings, env=HOME).settings
    assert set(loaded.sources.values()) == {"default"}
    (said,) = loaded.notes
    assert "# db=/d is not used: a master keeps all it knows in state_dir" in said
    assert "# logs=/l means nothing to a master" in said
    assert "# pool=A means nothing to a master" in said
    assert f"{oldconfig.ETC}/master.toml" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool=a/b", "pool must be a list of 1 to 64 names"),
        ("pool=:", "pool must be a list of 1 to 64 names"),
        ("cores=3", "line 1: unknown key 'cores'"),
    ],
)
def test_a_wrong_value_names_the_file(text: str, said: str, tmp_path: Path) -> None:
    config = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(SlaveSettings, config=config, env=HOME)
    assert str(caught.value).startswith(f"{config}: {said}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.conf: cannot be read: No such file or directory"):
        load(SlaveSettings, config=str(tmp_path / "none.conf"), env=HOME)
    (tmp_path / "folder.conf").mkdir()
    with pytest.raises(SettingsError, match=r"folder\.conf: cannot be read: Is a directory"):
        load(SlaveSettings, config=str(tmp_path / "folder.conf"), env=HOME)
    (tmp_path / "bytes.conf").write_bytes(b"logs=/\xff")
    with pytest.raises(SettingsError, match=r"bytes\.conf: is not text in UTF-8"):
        load(SlaveSettings, config=str(tmp_path / "bytes.conf"), env=HOME)


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(
    values=st.dictionaries(st.sampled_from([k for k in oldconfig.KEYS if k != "pool"]), PRINTABLE),
    names=st.lists(st.from_regex(r"\A[A-Za-z\"\\']{1,9}\Z"), max_size=5),
)
def test_what_the_note_prints_is_the_same_file_in_toml(values: dict[str, str], names: list[str]) -> None:
    file = parse("f", "".join(f"{k}={v}\n" for k, v in [*values.items(), ("pool", ":".join(names))]))
    known = SlaveSettings.__struct_fields__
    toml = "\n".join(line for line in note(file, "slave", known).splitlines() if line.startswith("    "))
    wanted: dict[str, object] = {**values, **({"pools": list(dict.fromkeys(names))} if names else {})}
    assert tomllib.loads(toml) == wanted


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"DRQUEUE_POOL": "A:B"}, ("A", "B")),
        ({"DRQUEUE_POOL": "A", "DRQUEUE_POOLS": "C"}, ("C",)),
        ({"DRQUEUE_POOL": ""}, ("Default",)),
    ],
)
def test_the_old_variable_of_pools(env: dict[str, str], wanted: tuple[str, ...]) -> None:
    assert load(SlaveSettings, env={**HOME, **env}).settings.pools == wanted


def test_a_wrong_old_variable_is_called_by_its_name() -> None:
    with pytest.raises(SettingsError, match="DRQUEUE_POOL must be a list of 1 to 64 names"):
        load(SlaveSettings, env={**HOME, "DRQUEUE_POOL": "a/b"})
    with pytest.raises(SettingsError, match="DRQUEUE_ENABLED must be true or false, not '2'"):
        load(SlaveSettings, env={**HOME, "DRQUEUE_ENABLED": "2"})


def test_keys_and_variables_are_in_the_page_for_those_who_come_from_it() -> None:
    page = (Path(__file__).parent.parent / "docs" / "coming-from-drqueue.md").read_text()
    for name in (*oldconfig.KEYS, oldconfig.POOL_VARIABLE, "DRQUEUE_ENABLED=0", "DRQUEUE_MAX_CPUS"):
        assert f"`{name}`" in page, name


# -- where it is looked for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "state_dir", "wanted"),
    [
        ({}, None, ["/etc/drqueue/slave.conf"]),
        ({}, "/var/lib/drqueue-slave", ["/etc/drqueue/slave.conf"]),
        ({"DRQUEUE_STATE_DIR": "/var/lib/drqueue-slave/"}, None, ["/etc/drqueue/slave.conf"]),
        ({"DRQUEUE_ETC": "/e", "DRQUEUE_ROOT": "/r"}, None, ["/etc/drqueue/slave.conf", "/e/slave.conf"]),
        ({"DRQUEUE_ROOT": "/r"}, None, ["/etc/drqueue/slave.conf", "/r/etc/slave.conf"]),
        ({"DRQUEUE_ETC": "/etc/drqueue/"}, None, ["/etc/drqueue/slave.conf"]),
        ({"DRQUEUE_ETC": "/e"}, "/tmp/s", []),
        ({"DRQUEUE_STATE_DIR": "/srv/farm"}, None, []),
        ({}, "/var/lib/drqueue-master", []),
    ],
)
def test_places(env: dict[str, str], state_dir: str | None, wanted: list[str]) -> None:
    """Those of a service, or of one who says nothing of where state lies."""
    assert places("slave", env, state_dir) == wanted
    assert all(path.endswith("/master.conf") for path in places("master", env, state_dir))


def test_the_later_file_wins_and_each_has_its_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, text in (("etc", "pool=A\nlogs=/a\n"), ("own", "pool=B\ntmp=/b\n")):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, text)
    monkeypatch.setattr(oldconfig, "ETC", str(tmp_path / "etc"))
    env = {**HOME, "DRQUEUE_ETC": str(tmp_path / "own")}
    loaded = load(SlaveSettings, env=env, search=True)
    slave = loaded.settings
    assert (slave.pools, slave.logs, slave.tmp) == (("B",), "/a", "/b")
    assert [said.split()[0] for said in loaded.notes] == [
        str(tmp_path / "etc" / "slave.conf"),
        str(tmp_path / "own" / "slave.conf"),
    ]
    (tmp_path / "x.toml").write_text("cores = 3\n")
    for other in (
        load(SlaveSettings, env=env),
        load(SlaveSettings, env=env, search=True, flags={"state_dir": "/tmp/s"}),
        load(SlaveSettings, env=env, search=True, config=str(tmp_path / "x.toml")),
        load(SlaveSettings, env={**HOME, "DRQUEUE_ETC": str(tmp_path / "etc" / "slave.conf")}),
    ):
        assert (other.settings.pools, other.notes) == (("Default",), ())
    written(tmp_path / "own", "nonsense=1\n")
    with pytest.raises(SettingsError, match="line 1: unknown key 'nonsense'"):
        load(SlaveSettings, env=env, search=True)


# -- the daemons -----------------------------------------------------------------------------------------


def shown(daemon: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"drqueue.{daemon}", "--print-settings", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["-c", "--config"])
def test_a_slave_is_given_such_a_file(flag: str, tmp_path: Path) -> None:
    config = written(tmp_path)
    done = shown("slave", flag, config)
    assert done.returncode == 0
    assert re.search(rf"^pools +maya,night,Default +{config} ", done.stdout, re.MULTILINE)
    assert done.stderr.startswith(f"drqueue-slave: {config} is a file of DrQueue 0.x. It is read, but ")
    assert done.stderr.count("is a file of DrQueue 0.x") == 1
    assert '\n    pools = ["maya", "night", "Default"]\n' in done.stderr
    assert max(map(len, done.stderr.replace(config, "FILE").splitlines())) <= 110


@pytest.mark.slow
def test_daemons_find_such_a_file_where_nobody_says_anything(tmp_path: Path) -> None:
    """And not where their state directory is named."""
    written(tmp_path, "pool=A\n")
    written(tmp_path, "db=/d\n", "master.conf")
    found = shown("slave", DRQUEUE_ETC=str(tmp_path))
    assert re.search(rf"^pools +A +{tmp_path}/slave.conf ", found.stdout, re.MULTILINE)
    assert f"drqueue-slave: {tmp_path}/slave.conf is a file of DrQueue 0.x" in found.stderr
    found = shown("master", DRQUEUE_ETC=str(tmp_path))
    assert f"drqueue-master: {tmp_path}/master.conf is a file of DrQueue 0.x" in found.stderr
    for daemon in ("master", "slave"):
        named = shown(daemon, "--state-dir", str(tmp_path / "state"), DRQUEUE_ETC=str(tmp_path))
        assert (named.returncode, named.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("daemon", ["master", "slave"])
def test_daemons_end_with_2_where_such_a_file_is_wrong(daemon: str, tmp_path: Path) -> None:
    config = written(tmp_path, "logs=/l\npolo=A\n")
    done = shown(daemon, "-c", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"drqueue-{daemon}: {config}: line 2: unknown key 'polo'; ")


@pytest.mark.slow
async def test_limits_at_the_start(tmp_path: Path) -> None:
    """Pools and cores until somebody sets limits; disabled each time that it is told so, and kept nowhere."""
    state = tmp_path / "s"
    master = ScriptedMaster(str(tmp_path / "m.sock"))

    async def limits(**given: object) -> SlaveLimits:
        settings = SlaveSettings(name="s", state_dir=str(state), cores=4, run_as="self", **given)  # type: ignore[arg-type]
        daemon = Daemon(settings, [Address("unix", path=master.path)], kill_frames_on_exit=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: daemon.serve(task_status=task_status))
            try:
                async with master.link() as link:
                    return (await link.register()).limits
            finally:
                daemon.stop()

    try:
        told = await limits(pools=("A",), max_cpus=2, enabled=False)
        assert told == SlaveLimits(pools=("A",), max_cpus=2, enabled=False)
        assert await limits(pools=("A",)) == SlaveLimits(pools=("A",))
        save_limits(str(state), SlaveLimits(pools=("B",), max_cpus=3))
        assert await limits(pools=("A",), max_cpus=2) == SlaveLimits(pools=("B",), max_cpus=3)
        told = await limits(pools=("A",), max_cpus=2, enabled=False)
        assert told == SlaveLimits(pools=("B",), max_cpus=3, enabled=False)
        assert (await limits()).enabled
        save_limits(str(state), SlaveLimits(enabled=False))
        assert not (await limits(enabled=True)).enabled
    finally:
        master.close()
