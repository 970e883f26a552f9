"""What the master says about itself when it is examined."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from drqueue import __version__
from drqueue.master.examine import examine
from drqueue.proto.views import Finding, HoldbackView
from drqueue.settings import MasterSettings
from tests.client.peer import slave_view
from tests.test_checkup import CERTIFICATE, KEY, PIN

OWN = f"drqueue {__version__}"


@pytest.fixture
def settings(tmp_path: Path) -> MasterSettings:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    for name, text in (("tls.crt", CERTIFICATE), ("tls.key", KEY)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return MasterSettings(state_dir=str(folder))


async def found(settings: MasterSettings, **known: Any) -> dict[str, Finding]:
    """The findings by what they are about, of a master on its socket and the network."""
    given: dict[str, Any] = {
        "listening": ("unix:/s", "0.0.0.0:1234"),
        "pin": PIN,
        "slaves": (slave_view("s1"),),
        "software": {"s1": OWN},
    }
    findings = await examine(settings, **{**given, **known})
    assert len({finding.what for finding in findings}) == len(findings)
    assert all(finding.advice for finding in findings if finding.state != "ok"), findings
    return {finding.what: finding for finding in findings}


async def test_a_master_that_is_well(settings: MasterSettings) -> None:
    findings = await found(settings)
    # Whether somebody keeps the clock right, and how many files may be open, is this machine's business.
    states = {what: f.state for what, f in findings.items() if what not in ("clock", "open files", "disk")}
    assert set(states.values()) == {"ok"}, findings
    assert set(findings) >= {
        "certificate", "clock", "state directory", "disk", "open files", "listening", "database", "links",
        "software", "slaves",
    }  # fmt: skip


async def test_the_certificate_is_the_one_that_is_shown(settings: MasterSettings) -> None:
    assert (await found(settings, pin="a" * 52))["certificate"].state == "bad"
    assert "certificate" not in await found(settings, pin="")


async def test_the_key_and_the_admins_secret_are_nobody_elses(settings: MasterSettings) -> None:
    admin = Path(settings.state_dir) / "admin.json"
    admin.write_text("{}")
    admin.chmod(0o644)
    assert (await found(settings))["state directory"].state == "bad"
    admin.chmod(0o600)
    assert (await found(settings))["state directory"].state == "ok"
    (Path(settings.state_dir) / "tls.key").chmod(0o640)
    findings = await found(settings)
    assert (findings["certificate"].state, findings["state directory"].state) == ("bad", "bad")


async def test_where_it_listens(settings: MasterSettings) -> None:
    assert "0.0.0.0:1234" in (await found(settings))["listening"].text
    assert (await found(settings, listening=("unix:/s",)))["listening"].state == "ok"
    told = MasterSettings(state_dir=settings.state_dir, listen="0.0.0.0:1234")
    assert (await found(told, listening=("unix:/s",)))["listening"].state == "bad"
    assert (await found(told))["listening"].state == "ok"
    everybody = MasterSettings(state_dir=settings.state_dir, socket_mode=0o666)
    assert (await found(everybody))["listening"].state == "warn"


async def test_the_databases_alarm_is_told(settings: MasterSettings) -> None:
    database = (await found(settings, alarm="the disk is full"))["database"]
    assert (database.state, database.text) == ("bad", "the disk is full")


async def test_slaves_that_are_away(settings: MasterSettings) -> None:
    now = time.time()
    restarting = slave_view("s2", id=1, linked=False, last_heard_at=now - 5)
    gone = slave_view("s3", id=2, linked=False, last_heard_at=now - 3600)
    assert (await found(settings, slaves=(slave_view("s1"), restarting)))["slaves"].state == "ok"
    slaves = (await found(settings, slaves=(slave_view("s1"), restarting, gone)))["slaves"]
    assert (slaves.state, slaves.text) == ("warn", "1 of 3 linked; away: s3")
    assert (await found(settings, slaves=()))["slaves"].state == "warn"


async def test_slaves_of_other_versions(settings: MasterSettings) -> None:
    software = (await found(settings, software={"s1": OWN, "s2": "drqueue 9", "s3": ""}))["software"]
    assert software.state == "warn"
    assert "s2 (drqueue 9), s3 (unknown)" in software.text
    assert "s1" not in software.text


async def test_who_waits_and_what_is_open(settings: MasterSettings) -> None:
    findings = await found(settings, pending=1, lines=2)
    assert findings["pending nodes"].state == "warn"
    assert findings["pending nodes"].text == "1 node waits to be approved"
    assert findings["open lines"].text == (
        "2 lines can still be used: see `drqueue node list --all` and `drqueue user list --all`"
    )
    assert not {"pending nodes", "open lines"} & set(await found(settings))


async def test_slaves_whose_access_was_revoked(settings: MasterSettings) -> None:
    slaves = (slave_view("s1"), slave_view("s2", id=1, linked=False, last_heard_at=5.0))
    findings = await found(settings, slaves=slaves, revoked=["s2"])
    assert (findings["slaves"].state, findings["slaves"].text) == ("ok", "1 of 2 linked")
    told = findings["revoked slaves"]
    assert (told.state, "the access of s2" in told.text) == ("warn", True)
    assert "drqueue node add" in told.advice
    assert "revoked slaves" not in await found(settings, slaves=slaves)


async def test_an_address_that_was_taken_of_several(settings: MasterSettings) -> None:
    told = (await found(settings, dialled="10.0.0.1", also=("192.0.2.1",)))["address"]
    assert (told.state, told.text) == ("warn", "join lines name 10.0.0.1; this machine has 192.0.2.1, too")
    assert "address" not in await found(settings, dialled="10.0.0.1")


async def test_links_that_are_nearly_used_up(settings: MasterSettings) -> None:
    assert (await found(settings, links=90, links_most=100))["links"].state == "ok"
    assert (await found(settings, links=91, links_most=100))["links"].state == "warn"
    # What a farm of a hundred thousand slaves would need, no process has by itself.
    files = (await found(settings, links=10**8))["open files"]
    assert files.state == "warn" or "no limit" in files.text


async def test_a_state_directory_that_is_gone(settings: MasterSettings) -> None:
    os.rename(settings.state_dir, f"{settings.state_dir}.away")
    findings = await found(settings)
    assert [findings[what].state for what in ("certificate", "state directory", "disk")] == ["bad"] * 3


async def test_sick_slaves_are_told_of_with_their_reason(settings: MasterSettings) -> None:
    assert "sick slaves" not in await found(settings)
    one = slave_view("s7", sick="5 frames of 2 users failed on it in a row, the last of job 7: exit 1")
    finding = (await found(settings, slaves=(slave_view("s1"), one)))["sick slaves"]
    assert (finding.state, finding.text) == ("warn", f"s7: {one.sick}")
    assert finding.advice.endswith("`drqueue slave heal s7`")
    two = (await found(settings, slaves=(one, slave_view("s8", sick="x"))))["sick slaves"]
    assert two.text == f"s7, s8; of s7: {one.sick}"
    assert two.advice.endswith("`drqueue slave heal NAME`")


HELD = "jobs of the backup are held back"
BY_TIME = "for 0 s at most, until every lease is over"


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (HoldbackView(jobs=1, until_at=1.0), f"1 job of the backup is held back {BY_TIME}"),
        (HoldbackView(jobs=2, for_operator=2), f"2 {HELD} until an operator vouches"),
        (
            HoldbackView(jobs=3, for_operator=1, until_at=1.0, slaves_away=2),
            f"3 {HELD} {BY_TIME}, 1 of them until an operator vouches (2 slaves not linked since)",
        ),
    ],
)
async def test_f16_what_is_held_back_after_a_restore_is_told(
    settings: MasterSettings, view: HoldbackView, text: str
) -> None:
    assert "held back" not in await found(settings)
    finding = (await found(settings, holdback=view))["held back"]
    assert (finding.state, finding.text) == ("warn", text)
    assert "drqueue farm resume" in finding.advice


async def test_f8_a_clock_that_is_not_believed_is_told(settings: MasterSettings) -> None:
    assert "date" not in await found(settings)
    finding = (await found(settings, doubt="the wall clock is 9 days ahead"))["date"]
    assert (finding.state, finding.text) == ("warn", "the wall clock is 9 days ahead")
