"""`drqueue limit`, `share` and `pool`: what they ask, what they print, and that on a real farm it holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from drqueue.client.cli.words import amount_text
from drqueue.proto import messages, sharing_messages
from drqueue.proto.model import Share
from drqueue.proto.sharing_messages import DropLimit, DropShare, PutLimit, PutPool, PutShare
from drqueue.proto.views import LimitView, PoolView, ShareView, Waits
from tests.client.conftest import Command
from tests.client.peer import Peer
from tests.e2e.helpers import farm_up, wait_until

NUKE = LimitView(name="nuke", amount=20, scope="slaves", used=20, waiting_jobs=3, held_by=("n1", "n2"))
HOUDINI = LimitView(name="houdini", amount=None, scope="attempts", waiting_jobs=2)
EVERYBODY = LimitView(name="user:*", amount=100, scope="cores")
ANNA = LimitView(name="user:anna", amount=100, scope="cores", used=2.5)
GIVEN = Share(of="project", name="robots", pool="Default", weight=2.5, minimum=100, burst=400)
ROBOTS = ShareView(
    of="project", name="robots", pool="Default", share=GIVEN, cores=12.5, remembered=3.25, waiting=7
)
OTHERS = ShareView(of="user", name="anna", pool="Default", share=None, cores=12, waiting=7)
EVERYWHERE = ShareView(of="user", name="bob", pool="", share=Share(of="user", name="bob", weight=3))
POOL = PoolView(
    name="Default",
    policy="fair",
    slaves=3,
    cores=24,
    cores_used=3.5,
    jobs=4,
    waiting=5,
    running=6,
    waits=Waits(count=7, p50_s=1.5, p90_s=75, p99_s=4000, most_s=5000),
)
NIGHT = PoolView(name="night", policy="fifo", jobs=1, waiting=9)


@pytest.fixture
def farm(master: Peer) -> Peer:
    """A master with limits, shares and pools; it has something to say about dropping."""
    answers: dict[type[messages.Request], Any] = {
        sharing_messages.ListLimits: lambda rq: sharing_messages.Limits(
            rq=rq, limits=(HOUDINI, NUKE, EVERYBODY, ANNA)
        ),
        sharing_messages.ListShares: lambda rq: sharing_messages.Shares(
            rq=rq, shares=(ROBOTS, OTHERS, EVERYWHERE)
        ),
        sharing_messages.ListPools: lambda rq: sharing_messages.Pools(rq=rq, pools=(POOL, NIGHT)),
        DropLimit: lambda rq: messages.Done(rq=rq, count=1, note="job 7 names it"),
    }
    for kind in (PutLimit, PutShare, DropShare, PutPool):
        answers[kind] = lambda rq: messages.Done(rq=rq, count=1)
    for kind, answer in answers.items():
        master.on[kind] = lambda _, asked, answer=answer: answer(asked.rq)
    return master


def last(master: Peer, kind: type[messages.Request]) -> Any:
    return [message for message in master.heard if isinstance(message, kind)][-1]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (20, "20"), (2.5, "2.5"), (0.125, "0.125"), (100.0, "100"), (1e6, "1000000")],
)
def test_amounts_as_people_write_them(amount: float, text: str) -> None:
    assert amount_text(amount) == text


# -- limits -----------------------------------------------------------------------------------------------


def test_limits_as_a_table(farm: Peer, drqueue: Command) -> None:
    said = drqueue("limit", "list")
    assert said.out.splitlines() == [
        "NAME       IN USE      LIMIT  COUNTS  JOBS WAITING  HELD BY",
        "houdini         0  never set                     2",
        "nuke           20         20  slaves             3  n1 n2",
        "user:*                   100  cores",
        "user:anna     2.5        100  cores              0",
    ]
    assert said.err == "jobs that name houdini wait; set it: drqueue limit set houdini AMOUNT\n"


def test_limits_as_json(farm: Peer, drqueue: Command) -> None:
    found = json.loads(drqueue("limit", "list", "--json").out)
    assert found[1] == {
        "name": "nuke",
        "amount": 20,
        "scope": "slaves",
        "used": 20,
        "waiting_jobs": 3,
        "held_by": ["n1", "n2"],
    }
    assert json.loads(drqueue("limit", "show", "nuke", "--json").out) == found[1]
    assert found[0]["amount"] is None


def test_one_limit(farm: Peer, drqueue: Command) -> None:
    assert drqueue("limit", "show", "nuke").out.splitlines() == [
        "limit    nuke",
        "amount   20",
        "counts   slaves",
        "in use   20",
        "waiting  3 jobs",
        "held by  n1, n2",
    ]
    assert "never set" in drqueue("limit", "show", "houdini").out
    missing = drqueue("limit", "show", "nuk")
    assert missing == (3, "", "drqueue: no limit 'nuk' was set: did you mean nuke?\n")


def test_a_farm_without_limits_says_how_to_set_one(farm: Peer, drqueue: Command) -> None:
    farm.on[sharing_messages.ListLimits] = lambda _, asked: sharing_messages.Limits(rq=asked.rq, limits=())
    assert drqueue("limit", "list") == (0, "", "no limits; set one: drqueue limit set NAME AMOUNT\n")
    assert drqueue("limit", "list", "--json").out == "[]\n"


@pytest.mark.parametrize(
    ("words", "amount", "scope"),
    [
        (("20",), 20, None),
        (("2.5", "--scope", "cores"), 2.5, "cores"),
        (("0",), 0, None),
        (("--scope", "slaves"), None, "slaves"),
        (("007.0",), 7, None),
    ],
)
def test_setting_a_limit(
    farm: Peer, drqueue: Command, words: tuple[str, ...], amount: float | None, scope: Any
) -> None:
    assert drqueue("limit", "set", "nuke", *words) == (0, "", "")
    asked = last(farm, PutLimit)
    assert asked == PutLimit(rq=asked.rq, name="nuke", amount=amount, scope=scope)


def test_what_is_done_is_said_where_somebody_looks(
    farm: Peer, drqueue: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drqueue.client.cli.words.sys.stderr.isatty", lambda: True)
    assert (
        drqueue("limit", "set", "user:*", "100", "--scope", "cores").err == "limit user:* is 100 cores now\n"
    )
    assert drqueue("limit", "set", "x", "1", "--scope", "attempts").err == "limit x is 1 attempt now\n"
    assert drqueue("limit", "set", "x", "--scope", "cores").err == "limit x counts cores now\n"
    assert drqueue("limit", "drop", "nuke").err == "limit nuke is dropped; job 7 names it\n"
    assert drqueue("share", "set", "user:bob", "--weight", "4").err == (
        "user:bob has weight 4 in all pools now\n"
    )
    assert drqueue("pool", "set", "night", "--policy", "fair").err == "pool night is fair now\n"


def test_what_is_worth_saying_is_always_said(farm: Peer, drqueue: Command) -> None:
    assert drqueue("limit", "drop", "nuke") == (0, "", "job 7 names it\n")
    assert json.loads(drqueue("limit", "drop", "nuke", "--json").out) == {
        "name": "nuke",
        "count": 1,
        "note": "job 7 names it",
    }


@pytest.mark.parametrize(
    "words",
    [
        ("limit", "set", "nuke"),
        ("limit", "set", "nuke", "-5"),
        ("limit", "set", "nuke", "many"),
        ("limit", "set", "nuke", "1e9"),
        ("limit", "set", "nuke", "9999999999999"),
        ("limit", "set", "nuke", "nan"),
        ("limit", "set", "nuke", "1", "--scope", "frames"),
        ("limit", "set"),
        ("share", "set", "robots", "--weight", "2"),
        ("share", "set", "team:robots", "--weight", "2"),
        ("share", "set", "user:", "--weight", "2"),
        ("share", "set", "user:anna"),
        ("share", "set", "user:anna", "--weight", "0"),
        ("share", "set", "user:anna", "--weight", "-1"),
        ("share", "set", "user:anna", "--weight", "1001"),
        ("share", "set", "project:x", "--pool", "P", "--burst", "all"),
        ("share", "drop", "anna"),
        ("pool", "set", "Default"),
        ("pool", "set", "Default", "--policy", "fairer"),
    ],
)
def test_wrong_usage_is_told_in_one_line_and_not_asked_for(
    farm: Peer, drqueue: Command, words: tuple[str, ...]
) -> None:
    said = drqueue(*words)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert not [asked for asked in farm.heard if isinstance(asked, (PutLimit, PutShare, DropShare, PutPool))]


# -- shares -----------------------------------------------------------------------------------------------


def test_shares_as_a_table(farm: Peer, drqueue: Command) -> None:
    assert drqueue("share", "list").out.splitlines() == [
        "WHO             POOL     WEIGHT  MIN  BURST  CORES  OF LATE  WAITING",
        "project:robots  Default     2.5  100    400   12.5      3.2        7",
        "user:anna       Default       1                 12      0.0        7",
        "user:bob        (all)         3                  0      0.0        0",
    ]
    night = json.loads(drqueue("share", "list", "--pool", "night", "--json").out)
    assert [view["name"] for view in night] == ["bob"]
    assert night[0]["share"]["weight"] == 3


def test_a_farm_without_shares_and_frames_says_how_to_give_one(farm: Peer, drqueue: Command) -> None:
    farm.on[sharing_messages.ListShares] = lambda _, asked: sharing_messages.Shares(rq=asked.rq, shares=())
    said = drqueue("share", "list")
    assert (said.status, said.out) == (0, "")
    assert "drqueue share set project:NAME --weight 2" in said.err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ("project:new", "--pool", "Default", "--weight", "2", "--minimum", "100", "--burst", "400"),
            Share(of="project", name="new", pool="Default", weight=2, minimum=100, burst=400),
        ),
        (("user:anna", "--weight", "0.5"), Share(of="user", name="anna", weight=0.5)),
        (("project:", "--weight", "2"), Share(of="project", name="", weight=2)),
        (
            ("project:robots", "--pool", "Default", "--weight", "3"),
            Share(of="project", name="robots", pool="Default", weight=3, minimum=100, burst=400),
        ),
        (
            ("project:robots", "--pool", "Default", "--burst", "none", "--minimum", "0"),
            Share(of="project", name="robots", pool="Default", weight=2.5),
        ),
        (("project:robots", "--weight", "3"), Share(of="project", name="robots", weight=3)),
        (
            ("user:bob", "--pool", "night", "--weight", "2"),
            Share(of="user", name="bob", pool="night", weight=2),
        ),
    ],
)
def test_a_share_keeps_what_is_left_out(
    farm: Peer, drqueue: Command, words: tuple[str, ...], wanted: Share
) -> None:
    assert drqueue("share", "set", *words) == (0, "", "")
    assert last(farm, PutShare).share == wanted


def test_a_new_share_of_one_pool_keeps_the_weight_of_all(farm: Peer, drqueue: Command) -> None:
    """It takes the other's place there: a minimum alone must not cost the weight."""
    everywhere = Share(of="project", name="film", weight=4)
    view = ShareView(of="project", name="film", pool="", share=everywhere)
    here = ShareView(of="project", name="film", pool="Default", share=everywhere, cores=2)
    farm.on[sharing_messages.ListShares] = lambda _, asked: sharing_messages.Shares(
        rq=asked.rq, shares=(view, here)
    )
    drqueue("share", "set", "project:film", "--pool", "Default", "--minimum", "10")
    assert last(farm, PutShare).share == Share(
        of="project", name="film", pool="Default", weight=4, minimum=10
    )


def test_dropping_a_share(farm: Peer, drqueue: Command) -> None:
    said = drqueue("share", "drop", "project:robots", "--pool", "Default", "--json")
    assert json.loads(said.out) == {
        "of": "project",
        "name": "robots",
        "pool": "Default",
        "count": 1,
        "note": "",
    }
    asked = last(farm, DropShare)
    assert asked == DropShare(rq=asked.rq, of="project", name="robots", pool="Default")


# -- pools ------------------------------------------------------------------------------------------------


def test_pools_as_a_table(farm: Peer, drqueue: Command) -> None:
    assert drqueue("pool", "list").out.splitlines() == [
        "NAME     POLICY  SLAVES   CORES  JOBS  RUN  WAIT   50%    90%    99%",
        "Default  fair         3  3.5/24     4    6     5  1.5s  1m15s  1h06m",
        "night    fifo         0     0/0     1    0     9     -      -      -",
    ]
    found = json.loads(drqueue("pool", "list", "--json").out)
    assert found[0]["waits"] == {"count": 7, "p50_s": 1.5, "p90_s": 75, "p99_s": 4000, "most_s": 5000}
    farm.on[sharing_messages.ListPools] = lambda _, asked: sharing_messages.Pools(rq=asked.rq, pools=())
    assert drqueue("pool", "list") == (0, "", "no pools: there is no slave and no job\n")


def test_a_pools_policy(farm: Peer, drqueue: Command) -> None:
    assert drqueue("pool", "set", "Default", "--policy", "fifo") == (0, "", "")
    asked = last(farm, PutPool)
    assert asked == PutPool(rq=asked.rq, name="Default", policy="fifo")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("limits", "'limit list'"), ("quota", "'limit list' or 'share list'"), ("heal", "'slave heal'")],
)
def test_other_words_for_them(drqueue: Command, word: str, meant: str) -> None:
    assert drqueue(word).err.startswith(f"drqueue: there is no command '{word}': did you mean {meant}?")


# -- on a real farm ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_limits_shares_and_pools_hold_on_a_real_farm(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[job]\nname = "comp"\nproject = "film"\n'
        '[[layer]]\nname = "comp"\ncommand = "sleep 600"\nframes = "1-3"\nlimits = { nuke = 1 }\n'
    )
    with farm_up(tmp_path, slaves=1, cores=2) as up:
        cli = up.cli
        cli.run("limit", "set", "nuke", 1)
        number = cli.submit("--file", job)

        def one_runs() -> bool:
            with cli.client() as client:
                (view,) = client.limits()
                return (view.used, view.waiting_jobs) == (1, 1) and client.pools()[0].running == 1

        wait_until("the one licence is taken", one_runs)
        (view,) = [each for each in cli.run("share", "list", "--json").json if each["of"] == "project"]
        assert (view["name"], view["cores"], view["waiting"], view["share"]) == ("film", 1, 2, None)
        cli.run("share", "set", "project:film", "--pool", "Default", "--weight", 2)
        (view,) = [each for each in cli.run("share", "list", "--json").json if each["of"] == "project"]
        assert view["share"]["weight"] == 2
        cli.run("pool", "set", "Default", "--policy", "fifo")
        (pool,) = cli.run("pool", "list", "--json").json
        assert (pool["name"], pool["policy"], pool["running"], pool["waiting"]) == ("Default", "fifo", 1, 2)
        assert cli.run("limit", "drop", "nuke").sentence == (
            f"job {number} names it: its frames wait until it is set again"
        )
        assert cli.run("limit", "drop", "nuke", status=3).sentence == (
            "drqueue: no limit 'nuke' was set, nor any other"
        )
        assert cli.run("limit", "set", "nuke", "-1", status=2).sentence
        cli.run("delete", number)
