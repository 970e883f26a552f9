"""What a slave's settings offer: how it is typed, and what is said of it where it is wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drqueue import offered
from drqueue.configuration import describe, load
from drqueue.settings import SettingsError, SlaveSettings

HOME = {"HOME": "/home/anna"}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("gpus", "0,2", (0, 2)),
        ("gpus", "2 0, 2", (0, 2)),
        ("gpus", "All", "all"),
        ("gpus", "none", "none"),
        ("gpus", "", "all"),
        ("disk_mb", "0", 0),
        ("disk_mb", "500", 500),
        ("amounts", "seats=2, ram=1.5,half=.5,none=0", {"seats": 2, "ram": 1.5, "half": 0.5, "none": 0}),
        ("tags", "ssd, 4k ssd", ("ssd", "4k")),
        ("attributes", "rack=12,site=Berlin Mitte", {"rack": "12", "site": "Berlin Mitte"}),
    ],
)
def test_variables_and_flags(key: str, text: str, expected: object) -> None:
    from_variable = load(SlaveSettings, env={**HOME, f"DRQUEUE_{key.upper()}": text}).settings
    assert getattr(from_variable, key) == expected
    if text:
        assert getattr(load(SlaveSettings, env=HOME, flags={key: text}).settings, key) == expected


def test_a_file(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text(
        "gpus = [1, 0]\ndisk_mb = 1000\namounts = { houdini_ram = 2, seats = 0.5 }\n"
        "tags = ['ssd']\n[attributes]\nrack = 12\nsite = 'a, b'\n"
    )
    slave = load(SlaveSettings, config=str(config), env=HOME).settings
    assert (slave.gpus, slave.disk_mb, slave.tags) == ((0, 1), 1000, ("ssd",))
    assert slave.amounts == {"houdini_ram": 2, "seats": 0.5}
    assert slave.attributes == {"rack": "12", "site": "a, b"}


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("gpus = 1", 'gpus must be "all", "none" or a list of device indexes, like 0,2, not 1'),
        ("gpus = [true]", "gpus must be"),
        ("gpus = [-1]", "gpus must be"),
        ("gpus = [0.5]", "gpus must be"),
        ("disk_mb = -1", "disk_mb must be a whole number from 0 to"),
        ("disk_mb = nan", "disk_mb must be a whole number"),
        ("amounts = 4", "amounts must be names with numbers, like seats=4, not 4"),
        ("amounts = { seats = nan }", "amounts must have a number from 0 to 1000000000 for seats, not nan"),
        ("amounts = { seats = inf }", "amounts must have a number from 0"),
        ("amounts = { seats = nan }", "amounts must have a number from 0"),
        (f"amounts = {{ seats = {'9' * 401} }}", "amounts must have a number from 0"),
        (f"amounts = {{ seats = 0x{'f' * 5000} }}", "amounts must have a number from 0"),
        (f"attributes = {{ a = 0x{'f' * 5000} }}", "attributes must have 1 to 255"),
        (f"gpus = [0x{'f' * 5000}]", 'gpus must be "all", "none" or'),
        ("amounts = { seats = -1 }", "amounts must have a number from 0"),
        ("amounts = { seats = true }", "amounts must have a number for seats, not True"),
        ("amounts = { seats = 'two' }", "amounts must have a number for seats, not 'two'"),
        ("amounts = { 'a b' = 1 }", "amounts cannot hold 'a b': a name is 1 to 63 letters"),
        ("amounts = { memory = 1 }", "amounts cannot hold 'memory': that is offered by a setting of its own"),
        ("tags = 'a/b'", "tags cannot hold 'a/b': a tag is 1 to 63"),
        ("tags = ['']", "tags cannot hold ''"),
        ("tags = [1]", "tags must be a list of names, not [1]"),
        ("tags = { a = 1 }", "tags must be a list of names"),
        ("attributes = ['a']", "attributes must be names with texts, like rack=12, not ['a']"),
        ("attributes = { a = true }", "attributes must have 1 to 255 printable characters for a, not True"),
        ("attributes = { a = ' ' }", "attributes must have 1 to 255"),
        ('attributes = { a = "x\\u0007" }', "attributes must have 1 to 255"),
        ("attributes = { Rack = '1', rack = '2' }", "attributes names 'rack' twice"),
        (f"attributes = {{ a = '{256 * 'x'}' }}", "attributes must have 1 to 255"),
    ],
)
def test_a_wrong_file_is_one_sentence(toml: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load(SlaveSettings, config=str(config), env=HOME)
    assert str(caught.value).startswith(f"{config}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("gpus", "0,,x", "DRQUEUE_GPUS must be"),
        ("gpus", "0;1", "DRQUEUE_GPUS must be"),
        ("amounts", "seats", "DRQUEUE_AMOUNTS must be names with numbers, like seats=4, not 'seats'"),
        ("amounts", "seats=nan", "DRQUEUE_AMOUNTS must have a number for seats, not 'nan'"),
        ("amounts", "seats=1e3", "DRQUEUE_AMOUNTS must have a number for seats"),
        ("amounts", "a=1,a=2", "DRQUEUE_AMOUNTS names 'a' twice"),
        ("amounts", ",".join(f"a{n}=1" for n in range(101)), "DRQUEUE_AMOUNTS has 101 names, 100 are"),
        ("tags", " ".join(f"t{n}" for n in range(101)), "DRQUEUE_TAGS has 101 tags, 100 are"),
        (
            "attributes",
            "rack=",
            "DRQUEUE_ATTRIBUTES must have 1 to 255 printable characters for rack, not ''",
        ),
        ("attributes", "a=\udcff", "DRQUEUE_ATTRIBUTES must have 1 to 255"),
    ],
)
def test_a_wrong_variable_is_one_sentence(key: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(SlaveSettings, env={**HOME, f"DRQUEUE_{key.upper()}": text})
    assert str(caught.value).startswith(said)


def test_what_is_shown_can_be_typed_in_again() -> None:
    given_ = {
        "gpus": "2,0",
        "amounts": "a=1,b=1.5",
        "tags": "x,y",
        "attributes": "r=12,s=a b",
        "disk_mb": "7",
    }
    loaded = load(SlaveSettings, env=HOME, flags=given_)
    shown = {row.name: row.value for row in describe(loaded) if row.name in given_}
    assert shown == {**given_, "gpus": "0,2"}
    assert load(SlaveSettings, env=HOME, flags=shown).settings == loaded.settings
    assert offered.read("gpus", []) == "none"


@given(st.sampled_from(sorted(offered.FIELDS)), st.text() | st.text(alphabet="ab=,1. -", max_size=12))
def test_any_text_is_a_value_or_a_sentence(key: str, text: str) -> None:
    said = ""
    try:
        value = offered.read(key, text)
    except ValueError as error:
        said = str(error)
    else:
        assert offered.read(key, value) == value
    assert len(said.splitlines()) <= 1
