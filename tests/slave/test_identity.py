"""Who a slave is stays on its machine, and is never guessed."""

import json
import shutil
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from drqueue.proto.model import SlaveLimits
from drqueue.slave import identity as module
from drqueue.slave.identity import (
    Identity,
    Machine,
    StateError,
    boot_id,
    load_limits,
    load_or_create,
    save,
    save_limits,
    this_machine,
)


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load_or_create(str(tmp_path), "node1", Machine("print"))
    assert len(first.id) == 32
    assert (first.name, first.farm, first.epoch, first.previous, first.cloned) == ("node1", "", 0, (), False)
    assert load_or_create(str(tmp_path), "node1", Machine("print")) == first
    assert stat.S_IMODE((tmp_path / "identity.json").stat().st_mode) == 0o600


def test_ids_are_random(tmp_path: Path) -> None:
    ids = set()
    for n in range(20):
        (tmp_path / str(n)).mkdir()
        ids.add(load_or_create(str(tmp_path / str(n)), "same", Machine("same")).id)
    assert len(ids) == 20


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    first = load_or_create(str(tmp_path), "node1", Machine("print"))
    changed = replace(first, farm="f" * 32, epoch=7)
    save(str(tmp_path), changed)
    assert load_or_create(str(tmp_path), "node1", Machine("print")) == changed


def test_a_new_name_keeps_the_id(tmp_path: Path) -> None:
    first = load_or_create(str(tmp_path), "node1", Machine("print"))
    renamed = load_or_create(str(tmp_path), "node2", Machine("print"))
    assert renamed == replace(first, name="node2")
    assert json.loads((tmp_path / "identity.json").read_text())["name"] == "node2"


def test_a_cloned_disk_takes_a_new_id_and_says_so_until_that_is_dealt_with(tmp_path: Path) -> None:
    first = replace(load_or_create(str(tmp_path), "node1", Machine("print")), farm="farm", epoch=3)
    save(str(tmp_path), first)
    clone = load_or_create(str(tmp_path), "node1", Machine("other"))
    assert clone.id != first.id
    assert clone == Identity(clone.id, "node1", "other", "farm", 3, (first.id,), True, path=str(tmp_path))
    assert load_or_create(str(tmp_path), "node1", Machine("other")) == clone
    save(str(tmp_path), replace(clone, cloned=False))
    assert not load_or_create(str(tmp_path), "node1", Machine("other")).cloned


def test_a_copied_folder_takes_a_new_id_and_the_original_keeps_its_own(tmp_path: Path) -> None:
    """Whatever one of them did not run, the other would give away while it runs."""
    (tmp_path / "a").mkdir()
    first = load_or_create(str(tmp_path / "a"), "node1", Machine("print"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = load_or_create(str(tmp_path / "b"), "node1", Machine("print"))
    assert (copy.previous, copy.cloned) == ((first.id,), True)
    assert load_or_create(str(tmp_path / "b"), "node1", Machine("print")) == copy
    assert load_or_create(str(tmp_path / "a"), "node1", Machine("print")) == first


def test_a_moved_folder_keeps_its_id(tmp_path: Path) -> None:
    """Also by a copy whose original is gone, or was given to another slave since; also behind a link."""
    (tmp_path / "a").mkdir()
    first = load_or_create(str(tmp_path / "a"), "node1", Machine("print"))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "link").symlink_to("b")
    assert load_or_create(str(tmp_path / "link"), "node1", Machine("print")).id == first.id
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "b").mkdir()
    other = load_or_create(str(tmp_path / "b"), "node2", Machine("print"))
    moved = load_or_create(str(tmp_path / "c"), "node1", Machine("print"))
    assert (moved.id, moved.cloned, moved.path) == (first.id, False, str(tmp_path / "c"))
    assert other.id != first.id


def test_previous_ids_are_bounded_newest_first(tmp_path: Path) -> None:
    ids = [load_or_create(str(tmp_path), "node1", Machine(str(n))).id for n in range(module.MAX_PREVIOUS + 5)]
    kept = load_or_create(str(tmp_path), "node1", Machine(str(module.MAX_PREVIOUS + 4)))
    assert kept.previous == tuple(reversed(ids[4:-1]))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"id": "", "name": "a", "fingerprint": "b"}',
        '{"id": 5, "name": "a", "fingerprint": "b"}',
        '{"id": "x", "name": "a", "fingerprint": "b", "epoch": "1"}',
        '{"id": "x", "name": "a", "fingerprint": "b", "epoch": -1}',
    ],
)
def test_a_damaged_identity_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(content)
    with pytest.raises(StateError, match=r"identity\.json is damaged"):
        load_or_create(str(tmp_path), "node1", Machine("print"))
    assert path.read_text() == content


def test_limits_are_kept_whole(tmp_path: Path) -> None:
    assert load_limits(str(tmp_path)) == SlaveLimits()
    limits = SlaveLimits(enabled=False, max_cpus=3, max_load=1.5, pools=("A", "B"), autoenable="21:00")
    save_limits(str(tmp_path), limits)
    assert load_limits(str(tmp_path)) == limits
    save_limits(str(tmp_path), SlaveLimits())
    assert json.loads((tmp_path / "limits.json").read_text())["enabled"] is True


@pytest.mark.parametrize(
    "content", ['{"enabled": 1}', '{"autoenable": "25:00"}', '{"pools": [1]}', '{"max_cpus": -1}']
)
def test_damaged_limits_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "limits.json").write_text(content)
    with pytest.raises(StateError, match=r"limits\.json is damaged"):
        load_limits(str(tmp_path))


def machine(root: Path, machine_id: str = "abc\n") -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc/machine-id").write_text(machine_id)
    (root / "sys/class/net").mkdir(parents=True)
    return root


def card(
    root: Path, name: str, address: str, *, bus: str | None = "pci", assign: str = "0", wifi: bool = False
) -> Path:
    folder = root / "sys/class/net" / name
    folder.mkdir()
    (folder / "address").write_text(address + "\n")
    (folder / "addr_assign_type").write_text(assign + "\n")
    if wifi:
        (folder / "phy80211").mkdir()
    if bus is not None:
        device = root / "devices" / bus / name
        device.mkdir(parents=True)
        (folder / "device").symlink_to(device)
    return folder


def test_the_fingerprint_is_of_machine_id_and_built_in_cards(tmp_path: Path) -> None:
    root = machine(tmp_path / "a")
    card(root, "eth0", "00:11:22:33:44:55")
    before = this_machine(str(root)).fingerprint
    other = machine(tmp_path / "b")
    card(other, "enp3s0", "00:11:22:33:44:55")
    assert this_machine(str(other)).fingerprint == before
    card(other, "enp4s0", "00:11:22:33:44:66")
    assert this_machine(str(other)).fingerprint != before
    (root / "etc/machine-id").write_text("def\n")
    assert this_machine(str(root)).fingerprint != before


def test_cards_that_come_and_go_do_not_count(tmp_path: Path) -> None:
    root = machine(tmp_path / "a")
    card(root, "eth0", "00:11:22:33:44:55")
    before = this_machine(str(root)).fingerprint
    card(root, "docker0", "02:42:00:00:00:01", bus=None)
    card(root, "usb0", "00:11:22:33:44:77", bus="usb1")
    card(root, "wlan0", "00:11:22:33:44:88", wifi=True)
    card(root, "eth1", "00:11:22:33:44:99", assign="3")
    card(root, "ib0", "00:00:00:00:00:00")
    assert this_machine(str(root)).fingerprint == before


def test_a_card_in_a_bond_counts_with_its_own_address(tmp_path: Path) -> None:
    root = machine(tmp_path / "a")
    folder = card(root, "eth0", "00:11:22:33:44:55")
    before = this_machine(str(root)).fingerprint
    (folder / "address").write_text("aa:aa:aa:aa:aa:aa")
    (folder / "addr_assign_type").write_text("2")
    (folder / "bonding_slave").mkdir()
    (folder / "bonding_slave/perm_hwaddr").write_text("00:11:22:33:44:55\n")
    assert this_machine(str(root)).fingerprint == before


def test_a_machine_that_shows_nothing_has_a_fingerprint_too(tmp_path: Path) -> None:
    assert len(this_machine(str(tmp_path)).fingerprint) == 64
    assert boot_id(str(tmp_path)) == ""


def test_this_machines_boot_id_is_the_kernels() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert this_machine().fingerprint == this_machine().fingerprint


# --- the same machine


def looked_at(state: Path, root: Path) -> Identity:
    """The identity of a slave that starts on that machine."""
    state.mkdir(exist_ok=True)
    return load_or_create(str(state), "node1", this_machine(str(root)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with one card."""
    root = machine(tmp_path / "machine")
    card(root, "eth0", "00:11:22:33:44:55")
    return root


def test_p5_a_new_card_is_no_clone_and_keeps_the_first_fingerprint(tmp_path: Path, root: Path) -> None:
    """One by one all cards may be replaced; the master is told of the same machine throughout."""
    first = looked_at(tmp_path / "s", root)
    net = root / "sys/class/net"
    card(root, "eth1", "00:11:22:33:44:66")
    second = looked_at(tmp_path / "s", root)
    shutil.rmtree(net / "eth0")
    third = looked_at(tmp_path / "s", root)
    for later in (second, third):
        assert (later.id, later.fingerprint, later.cloned) == (first.id, first.fingerprint, False)
    card(root, "eth2", "00:11:22:33:44:77")
    shutil.rmtree(net / "eth1")
    other = looked_at(tmp_path / "s", root)  # none of those that it had when it was looked at last
    assert (other.id != first.id, other.cloned) == (True, True)
    assert other.fingerprint == this_machine(str(root)).fingerprint != first.fingerprint


def test_f16_a_cloned_disk_has_its_machine_id_or_its_cards_but_never_both(tmp_path: Path, root: Path) -> None:
    first = looked_at(tmp_path / "s", root)
    same_id = machine(tmp_path / "same-id")
    card(same_id, "eth0", "00:11:22:33:44:99")
    same_card = machine(tmp_path / "same-card", "def\n")
    card(same_card, "eth0", "00:11:22:33:44:55")
    for number, other in enumerate((same_id, same_card, machine(tmp_path / "no-card"))):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "s", copy)
        clone = looked_at(copy, other)
        assert clone.cloned
        assert clone.previous == (first.id,)
    assert looked_at(tmp_path / "s", root) == first


def test_machines_without_cards_are_told_by_their_id_alone(tmp_path: Path) -> None:
    root = machine(tmp_path / "a")
    first = looked_at(tmp_path / "s", root)
    assert looked_at(tmp_path / "s", root) == first
    assert looked_at(tmp_path / "s", machine(tmp_path / "b", "def\n")).id != first.id


def test_what_an_earlier_version_saved_is_known_by_its_fingerprint(tmp_path: Path, root: Path) -> None:
    """And can be told from a clone better from then on."""
    first = looked_at(tmp_path / "s", root)
    path = tmp_path / "s" / "identity.json"
    stored = json.loads(path.read_text())
    del stored["marks"]
    path.write_text(json.dumps(stored))
    assert looked_at(tmp_path / "s", root) == first
    card(root, "eth1", "00:11:22:33:44:66")
    assert looked_at(tmp_path / "s", root).id == first.id
    path.write_text(json.dumps(stored))
    assert looked_at(tmp_path / "s", root).cloned


def test_neither_ids_nor_addresses_of_a_machine_are_saved(tmp_path: Path, root: Path) -> None:
    looked_at(tmp_path / "s", root)
    text = (tmp_path / "s" / "identity.json").read_text()
    assert all(len(mark) == 64 for mark in json.loads(text)["marks"])
    assert "00:11" not in text
