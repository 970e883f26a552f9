"""What the keeper does for frames that last but a moment: bases, starts told late, logs used again."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.slave.tree_harness import Client, Ward, until

pytestmark = pytest.mark.slow

K1, K2, K3 = [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 2, 1]


def launch(ward: Ward, key: list[int], **more: object) -> dict[str, object]:
    """A launch that leaves all that it can to the base."""
    return {"do": "launch", "key": key, "env": {}, "log": str(ward.log(key)), **more}


def base(ward: Ward, *argv: str, **more: object) -> dict[str, object]:
    return {
        "do": "base", "argv": argv, "env": ward.env(K1), "cwd": str(ward.work), "umask": 0o022,
        "cap": 1 << 20, **more,
    }  # fmt: skip


def ends(keeper: Client, count: int) -> dict[int, dict[str, object]]:
    """How that many attempts ended, by frame."""
    found: dict[int, dict[str, object]] = {}
    while len(found) < count:
        report = keeper.next()
        if report["is"] != "started":
            found[report["key"][2]] = report
    return found


# --- bases


def test_a_launch_goes_over_the_base(keeper: Client, ward: Ward) -> None:
    argv = ("/bin/sh", "-c", 'echo "$OF_BASE $OF_FRAME"')
    keeper.send(
        base(ward, *argv, env={**ward.env(K1), "OF_BASE": "caf\udce9", "OF_FRAME": "base"}),
        launch(ward, K1),
        launch(ward, K2, env={"OF_FRAME": "own"}),
        launch(ward, K3, argv=["/bin/sh", "-c", "umask; exit 3"], umask=0o077),
    )
    found = ends(keeper, 3)
    assert [found[number]["code"] for number in (0, 1, 2)] == [0, 0, 3]
    assert ward.log(K1).read_bytes() == b"caf\xe9 base\n"
    assert ward.log(K2).read_bytes() == b"caf\xe9 own\n"
    assert ward.log(K3).read_text() == "0077\n"


def test_a_base_is_the_connections_own(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/true"))
    other = Client.attach(ward)
    other.greet()
    other.send(launch(ward, K1))
    assert other.closed()  # nothing says what to run
    other.close()


@pytest.mark.parametrize("env", [None, {"A": 1}, {"A": "\ud800"}, ["A"]])
def test_a_base_that_is_none_costs_the_connection(keeper: Client, ward: Ward, env: object) -> None:
    keeper.send(base(ward, "/bin/true", env=env))
    assert keeper.closed()
    again = Client.attach(ward)
    assert again.greet() == []
    again.close()


def test_many_are_forgotten_at_once(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/true"), launch(ward, K1), launch(ward, K2), launch(ward, K3))
    ends(keeper, 3)
    keeper.send({"do": "forget", "keys": [K1, K3]})
    other = Client.attach(ward)
    assert [held["key"] for held in other.greet()] == [K2]
    other.close()


# --- starts


def test_of_a_short_frame_only_the_end_is_told(keeper: Client, ward: Ward) -> None:
    """Its end says when it began; one that goes on is told of, with its own process, before it ends."""
    keeper.send(base(ward, "/bin/sleep", "600"), launch(ward, K1))
    long = keeper.next()
    assert (long["is"], long["key"]) == ("started", K1)
    before = time.time()
    # While nothing else runs it up, the machine may still take longer than a moment for one of them.
    keeper.send(*[launch(ward, [1, 0, number, 1], argv=["/bin/true"]) for number in range(20)])
    reports: list[dict[str, Any]] = []
    while sum(report["is"] == "ended" for report in reports) < 20:
        reports.append(keeper.next())
    assert len(reports) < 40
    assert all(before - 1 < report["start"] <= report["end"] for report in reports if report["is"] == "ended")
    os.kill(long["pid"], signal.SIGKILL)
    assert keeper.next()["signal"] == signal.SIGKILL


def test_a_start_that_was_not_told_is_told_whoever_attaches(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/sleep", "600"), launch(ward, K1), {"do": "forget", "keys": []})
    other = Client.attach(ward)
    (held,) = until(other.greet)
    assert (held["is"], held["key"]) == ("started", K1)
    os.kill(held["pid"], signal.SIGKILL)
    assert other.next()["is"] == "ended"
    other.close()


# --- logs


def run_one(keeper: Client, ward: Ward, key: list[int], script: str, **more: object) -> dict[str, object]:
    keeper.send(launch(ward, key, argv=["/bin/sh", "-c", script], again=True, **more))
    return next(iter(ends(keeper, 1).values()))


def test_an_empty_log_is_used_again(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/true"))
    assert run_one(keeper, ward, K1, "exit 0")["log"] == 0
    first = ward.log(K1).stat().st_ino
    assert run_one(keeper, ward, K2, "echo mine")["log"] == 5
    assert not ward.log(K1).exists()
    assert ward.log(K2).stat().st_ino == first
    assert run_one(keeper, ward, K3, "echo other")["log"] == 6
    assert (ward.log(K2).read_text(), ward.log(K3).read_text()) == ("mine\n", "other\n")


def test_only_with_leave_and_in_the_same_folder(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/true"), launch(ward, K1, again=False))
    ends(keeper, 1)
    run_one(keeper, ward, K2, "exit 0")
    assert ward.log(K1).exists()
    elsewhere = ward.state / "elsewhere"
    elsewhere.mkdir()
    run_one(keeper, ward, K3, "echo x", log=str(elsewhere / "log"))
    assert ward.log(K2).exists()
    assert (elsewhere / "log").read_text() == "x\n"


def test_a_spare_log_that_was_removed_or_is_wanted_by_name(keeper: Client, ward: Ward) -> None:
    keeper.send(base(ward, "/bin/true"))
    run_one(keeper, ward, K1, "exit 0")
    ward.log(K1).unlink()
    run_one(keeper, ward, K2, "echo new")
    assert ward.log(K2).read_text() == "new\n"
    run_one(keeper, ward, K3, "exit 0")
    keeper.send({"do": "forget", "key": K3})
    run_one(keeper, ward, K3, "echo again")
    run_one(keeper, ward, [5, 0, 0, 1], "echo last")
    assert ward.log(K3).read_text() == "again\n"
    assert ward.log([5, 0, 0, 1]).read_text() == "last\n"


def test_logs_that_are_in_use_side_by_side_are_several(keeper: Client, ward: Ward) -> None:
    """More at a time than are kept: none is given to two."""
    keeper.send(base(ward, "/bin/true"))
    keys = [[7, 0, number, 1] for number in range(40)]
    keeper.send(*[launch(ward, key, again=True) for key in keys])
    ends(keeper, len(keys))
    said = [[8, 0, number, 1] for number in range(40)]
    keeper.send(*[launch(ward, key, argv=["/bin/echo", str(key[2])], again=True) for key in said])
    ends(keeper, len(said))
    assert [Path(ward.log(key)).read_text() for key in said] == [f"{key[2]}\n" for key in said]


# --- ends held back


def test_an_end_does_not_wait_for_what_goes_on(keeper: Client, ward: Ward) -> None:
    """Held back for a moment, as others may follow, but no longer than that; the quickest of some tells."""
    keeper.send(base(ward, "/bin/true"))
    waited = []
    for number in range(10):
        long, short = [0, 1, number, 1], [0, 0, number, 1]
        keeper.send(launch(ward, long, argv=["/bin/sleep", "60"]), launch(ward, short))
        while (report := keeper.next())["is"] != "ended":
            pass
        waited.append(time.time() - report["end"])
        assert report["key"] == short
        keeper.send({"do": "signal", "key": long, "kill": True})
        while keeper.next()["is"] != "ended":
            pass
    assert min(waited) < 0.03
