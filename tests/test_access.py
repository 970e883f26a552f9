"""`access.json`: what is refused and what is said about it, and where it is looked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from drqueue.access import (
    Access,
    AccessError,
    access_lock,
    access_path,
    find_access,
    read_access,
    with_access,
    write_access,
)
from drqueue.address import parse_address

WAY = Access(
    host="10.0.0.1", port=1234, pin="p", farm="f", account="a", name="anna", role="artist", secret="s" * 52
)

LOG_OUT = """
import os
from drqueue.client.login import log_out

print("begins", flush=True)
log_out(None, os.environ)
"""


def refusal(path: Path) -> str:
    """Why a file is not used: one sentence that names it once."""
    with pytest.raises(AccessError) as caught:
        read_access(str(path))
    text = str(caught.value)
    assert text.count(str(path)) == 1, text
    assert WAY.secret not in text
    return text


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"farms": [{"host": 1}]}'])
def test_what_is_damaged_is_said_once_and_what_helps(tmp_path: Path, content: str) -> None:
    path = tmp_path / "access.json"
    path.write_text(content)
    path.chmod(0o600)
    text = refusal(path)
    assert "is damaged" in text
    assert "move it away" in text
    assert text.endswith("then log in, or join, again")


def test_a_link_to_a_file_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    write_access(str(tmp_path / "real.json"), [WAY])
    path = tmp_path / "access.json"
    path.symlink_to("real.json")
    assert "no ordinary file" in refusal(path)


def test_a_file_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns it could have had it read before, or change it later."""
    path = tmp_path / "access.json"
    write_access(str(path), [WAY])
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert "belongs to somebody else" in refusal(path)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """It would make a file wherever somebody wants one."""
    path, victim = tmp_path / "access.json", tmp_path / "victim"
    (tmp_path / "access.json.lock").symlink_to(victim)
    with pytest.raises(AccessError), access_lock(str(path)):
        pass
    assert not victim.exists()


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "file" / "access.json"
    path.parent.write_text("")
    with pytest.raises(AccessError) as caught:
        write_access(str(path), [WAY])
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize("home", ["", "here"])
def test_whoever_has_no_home_gets_none_of_the_folder_they_are_in(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    """As in a container whose user is in no database: the shell's `~` is then the name of a folder."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert access_path({"HOME": home}) == "/.config/drqueue/access.json"


def test_the_newest_way_in_replaces_those_to_the_same_farm_or_place() -> None:
    moved, other = structs.replace(WAY, host="10.0.0.2"), structs.replace(WAY, farm="g", port=1)
    assert with_access([WAY, other], moved) == [moved, other]


@pytest.mark.parametrize(
    ("kept", "named", "found"),
    [
        ("fd00::1", "[FD00:0:0::1]", True),
        ("fd00::1", "fd00::2", False),
        ("fe80::1%eth0", "[fe80::1%eth1]", False),
        ("Render.example", "render.example.", True),
        ("render.example", "render.example:1235", False),
        ("10.0.0.1", "10.0.0.1:1234", True),
    ],
)
def test_a_place_is_found_however_it_is_written(kept: str, named: str, found: bool) -> None:
    way = structs.replace(WAY, host=kept)
    assert find_access([way], parse_address(named)) == (way if found else None)


def test_another_process_waits_until_a_change_is_whole(tmp_path: Path) -> None:
    """Here: a logout, that would write back what it read before."""
    path = tmp_path / "access.json"
    write_access(str(path), [WAY])
    with access_lock(str(path)):
        other = subprocess.Popen(
            [sys.executable, "-c", LOG_OUT], env={"DRQUEUE_ACCESS": str(path)}, stdout=subprocess.PIPE
        )
        assert other.stdout is not None
        assert other.stdout.readline() == b"begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
        assert read_access(str(path)) == [WAY]
    assert other.wait(20) == 0
    other.stdout.close()
    assert read_access(str(path)) == []
