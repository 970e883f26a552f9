"""What clients may do and see at the master: rights at what the shell does itself, masks, cuts, the audit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from drqueue.channel import Channel, LinkClosed
from drqueue.master import clients, desk
from drqueue.master.core.records import AccountRecord
from drqueue.proto.ids import AttemptKey
from drqueue.proto.link_messages import Beat, Exited, Message, Progressed, Rejected, Report, Started
from drqueue.proto.messages import (
    AccountVerb,
    AddLine,
    Attempts,
    Audit,
    Changed,
    Done,
    Examine,
    Findings,
    FindLog,
    Frames,
    GetJob,
    GetSlave,
    GetSpec,
    GetTicket,
    Job,
    KillAttempts,
    ListAttempts,
    ListAudit,
    ListFrames,
    ListSlaves,
    LogPlace,
    ReadLog,
    Refusal,
    Request,
    SetLimits,
    SlaveInfo,
    Slaves,
    TheLine,
    Ticket,
    Unwatch,
    Watch,
    Watching,
    WhoAmI,
    You,
)
from drqueue.proto.model import LimitsChange
from drqueue.proto.roles import Role, Who
from drqueue.proto.views import Finding
from tests.builders import badly
from tests.master.rig import Rig, ask, replaced, said

VIEWER = Who(name="vic", role="viewer", peer="uid 1007")
ARTIST = Who(name="anna", role="artist", peer="uid 1001")
SUPER = Who(name="sue", role="supervisor", peer="uid 1002")
AWAY = Who(name="joe", role="admin", account="0123456789abcdef", peer="192.0.2.9")


@pytest.fixture
async def rig(nursery: trio.Nursery) -> Rig:
    made = Rig()
    nursery.start_soon(made.run)
    return made


def knows(rig: Rig, who: Who) -> None:
    """Give somebody's account to the master."""
    record = AccountRecord(
        id=who.account, kind="user", name=who.name, role=who.role, secret_hash=f"{who.account:0<64}",
        created_at=0, created_by="test",
    )  # fmt: skip
    rig.core.state.register.put(record, [])


@asynccontextmanager
async def away(rig: Rig) -> AsyncIterator[Channel]:
    """An admin's link from another machine."""
    knows(rig, AWAY)
    async with rig.client(who=AWAY) as client:
        yield client


async def refused(client: Channel, request: Request) -> Refusal:
    answer = await ask(client, request)
    assert isinstance(answer, Refusal), answer
    assert answer.rq == request.rq
    return answer


def keys_of(rig: Rig) -> list[AttemptKey]:
    return [order.key for orders in rig.orders for order in orders.run]


async def heard(far: Channel, kind: type[Message]) -> list[Message]:
    return [message for message in await said(far) if isinstance(message, kind)]


# -- what viewers see ------------------------------------------------------------------------------------


async def test_viewers_see_neither_commands_nor_words_of_frames(rig: Rig) -> None:
    """Of everything that quotes a command or a log; others see it all."""
    async with rig.client() as root, rig.client(who=VIEWER) as viewer, rig.slave() as slave:
        job = await rig.submit(root, "5-6", layer={"argv": ("render", "--secret-scene")})
        await trio.testing.wait_all_tasks_blocked()
        one, two = keys_of(rig)
        failed = Exited(one, badly(3, text="the scene says hush"))
        going = Progressed(two, 0.5, "sample 3 of 9")
        slave.send(Report(started=(Started(two, 5.0),), exited=(failed,), progressed=(going,)))
        await trio.testing.wait_all_tasks_blocked()
        for request, kind in (
            (GetJob(rq=1, job=job), Job),
            (ListFrames(rq=2, job=job), Frames),
            (ListAttempts(rq=3, job=job, number=5), Attempts),
            (GetSlave(rq=4, slave="s1"), SlaveInfo),
        ):
            full, less = await ask(root, request), await ask(viewer, request)
            assert isinstance(full, kind)
            assert isinstance(less, kind)
            told = [word for word in ("secret-scene", "hush", "sample 3") if word in str(full)]
            assert told, f"{kind.__name__} tells nothing: the test has no point"
            assert not [word for word in told if word in str(less)]


async def test_viewers_hear_no_words_of_frames_either(rig: Rig) -> None:
    async with rig.client() as root, rig.client(who=VIEWER) as viewer, rig.slave() as slave:
        job = await rig.submit(root, "5")
        for client in (root, viewer):
            assert isinstance(await ask(client, Watch(rq=1, job=job, slaves=True)), Watching)
        await trio.testing.wait_all_tasks_blocked()
        (key,) = keys_of(rig)
        slave.send(Report(started=(Started(key, 5.0),), progressed=(Progressed(key, 0.5, "sample 3"),)))
        await trio.testing.wait_all_tasks_blocked()
        full, less = await heard(root, Changed), await heard(viewer, Changed)
        assert "sample 3" in str(full)
        assert "running=0.5" in str(less) or "progress=0.5" in str(less)
        assert "sample 3" not in str(less)


async def test_what_is_seen_follows_the_role_of_the_moment(rig: Rig) -> None:
    """An account that was made a viewer's sees like one, even in the moments before its link is cut."""
    who = Who(name="joe", role="artist", account="0123456789abcdef", peer="192.0.2.9")
    knows(rig, who)
    async with rig.client() as root, rig.client(who=who) as client:
        job = await rig.submit(root, layer={"argv": ("render", "--secret-scene")})
        assert "secret-scene" in str(await ask(client, GetJob(rq=1, job=job)))
        knows(rig, Who(name="joe", role="viewer", account=who.account))
        assert "secret-scene" not in str(await ask(client, GetJob(rq=1, job=job)))
        assert (await refused(client, GetSpec(rq=1, job=job))).code == "not-allowed"


@pytest.mark.parametrize("role", ["viewer", "artist", "supervisor", "admin"])
async def test_paths_of_this_machine_are_told_only_on_it(rig: Rig, role: Role) -> None:
    place = "unix:/run/drqueue-slave/control.sock"
    who = Who(name="joe", role=role, account="0123456789abcdef", peer="192.0.2.9")
    here = Who(name="joe", role=role, peer="uid 7")
    knows(rig, who)
    async with rig.client() as root, rig.client(who=who) as far, rig.client(who=here) as near:
        async with rig.slave(control=place):
            job = await rig.submit(root, "5")
            await trio.testing.wait_all_tasks_blocked()
            requests: list[tuple[Request, type[Request]]] = [
                (GetSlave(rq=1, slave="s1"), SlaveInfo),
                (ListSlaves(rq=2), Slaves),
                (GetTicket(rq=3, slave="s1"), Ticket),
            ]
            if role != "viewer":
                requests.append((FindLog(rq=4, job=job, number=5), LogPlace))
            for request, kind in requests:
                local, remote = await ask(near, request), await ask(far, request)
                assert isinstance(local, kind)
                assert isinstance(remote, kind)
                assert place in str(local)
                assert place not in str(remote)
            for client in (near, far):
                assert isinstance(await ask(client, Watch(rq=5, slaves=True)), Watching)
        await trio.testing.wait_all_tasks_blocked()
        assert place in str(await heard(near, Changed))
        assert place not in str(await heard(far, Changed))


async def test_the_log_of_an_ended_frame_is_placed_likewise(rig: Rig) -> None:
    place = "unix:/run/drqueue-slave/control.sock"
    async with rig.client() as root, away(rig) as far, rig.slave(control=place) as slave:
        job = await rig.submit(root, "5", layer={"retries": 0})
        await trio.testing.wait_all_tasks_blocked()
        slave.send(Report(exited=(Exited(keys_of(rig)[0], badly(3)),)))
        await trio.testing.wait_all_tasks_blocked()
        for client, control in ((root, place), (far, "")):
            found = await ask(client, FindLog(rq=1, job=job, number=5))
            assert isinstance(found, LogPlace)
            assert (found.over, found.control) == (True, control)


# -- what the shell does itself --------------------------------------------------------------------------


async def test_everybody_is_told_who_they_are(rig: Rig) -> None:
    async with rig.client(who=VIEWER) as viewer, away(rig) as far:
        assert await ask(viewer, WhoAmI(rq=1)) == You(rq=1, name="vic", role="viewer", peer="uid 1007")
        assert await ask(far, WhoAmI(rq=1)) == You(
            rq=1, name="joe", role="admin", account=AWAY.account, peer="192.0.2.9"
        )


async def test_relays_ask_for_rights_before_the_slave_hears_of_it(rig: Rig) -> None:
    async with (
        rig.client() as root,
        rig.client(who=VIEWER) as viewer,
        rig.client(who=ARTIST) as anna,
        rig.slave() as slave,
    ):
        others = await rig.submit(root, "1")
        await trio.testing.wait_all_tasks_blocked()
        (key,) = keys_of(rig)
        await said(slave)
        for client, request in (
            (viewer, ReadLog(rq=1, slave="s1", key=key)),
            (viewer, KillAttempts(rq=2, slave="s1", job=others)),
            (viewer, Examine(rq=3, slave="s1")),
            (anna, KillAttempts(rq=4, slave="s1", job=others)),
            (anna, KillAttempts(rq=5, slave="s1", keys=(key,))),
            (anna, KillAttempts(rq=6, slave="s1")),
            (anna, SetLimits(rq=7, slave="s1", change=LimitsChange(enabled=False))),
            (anna, Examine(rq=8)),
            (anna, Examine(rq=9, slave="s1")),
            (anna, ListAudit(rq=10)),
        ):
            assert (await refused(client, request)).code == "not-allowed"
        assert await said(slave) == []
        whos = [(who, outcome) for who, _what, outcome in rig.audit() if outcome == "not-allowed"]
        assert whos.count(("vic", "not-allowed")) == 3
        assert whos.count(("anna", "not-allowed")) == 7


async def test_an_artists_own_frames_are_killed_on_their_word_and_that_is_audited(rig: Rig) -> None:
    async with rig.client(who=ARTIST) as anna, rig.slave() as slave:
        job = await rig.submit(anna, "1")
        await trio.testing.wait_all_tasks_blocked()
        await said(slave)
        anna.send(KillAttempts(rq=1, slave="s1", job=job))
        passed = await slave.receive()
        assert isinstance(passed, KillAttempts)
        slave.send(Done(rq=passed.rq, count=1))
        assert await anna.receive() == Done(rq=1, count=1)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.audit()[-1] == ("anna", f"slave s1: kill all frames of job {job} 'job'", "done")


async def test_what_became_of_a_relayed_change_is_audited_whatever_it_was(rig: Rig) -> None:
    change = SetLimits(rq=1, slave="s1", change=LimitsChange(max_cpus=2))
    async with rig.client(who=SUPER) as sue, rig.slave() as slave:
        sue.send(change)
        passed = await slave.receive()
        slave.send(replaced(Refusal(rq=0, code="bad-limits", text="no"), passed.rq))  # type: ignore[attr-defined]
        assert isinstance(await sue.receive(), Refusal)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.audit()[-1] == ("sue", "slave s1: set max_cpus=2", "bad-limits")
        # It may have been done, and who asked is gone.
        sue.send(change)
        await slave.receive()
        sue.close()
        await trio.testing.wait_all_tasks_blocked()
        assert rig.audit()[-1] == ("sue", "slave s1: set max_cpus=2", "unknown")


async def test_reading_a_log_through_the_master_is_not_audited(rig: Rig) -> None:
    async with rig.client(who=ARTIST) as anna, rig.slave() as slave:
        before = rig.audit()
        anna.send(ReadLog(rq=1, slave="s1", key=AttemptKey(1, 0, 0, 1)))
        passed = await slave.receive()
        slave.send(replaced(Refusal(rq=0, code="no-such-log", text="no"), passed.rq))  # type: ignore[attr-defined]
        await anna.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert rig.audit() == before


async def test_lines_have_tokens_of_their_own(rig: Rig) -> None:
    async with rig.client() as root:
        texts = set()
        for n in range(3):
            line = await ask(root, AddLine(rq=n, kind="node"))
            assert isinstance(line, TheLine)
            texts.add(line.line.rpartition(":")[2])
        assert len(texts) == 3
        assert all(len(text) == 32 for text in texts)


# -- examination -----------------------------------------------------------------------------------------


async def test_the_master_and_its_slaves_are_examined(rig: Rig) -> None:
    async with rig.client() as root, rig.slave() as slave:
        assert await ask(root, Examine(rq=1)) == Findings(rq=1, findings=rig.findings)
        root.send(Examine(rq=2, slave="s1"))
        passed = await slave.receive()
        assert isinstance(passed, Examine)
        found = (Finding(what="clock", state="warn", text="it is late", advice="run an NTP client"),)
        slave.send(Findings(rq=passed.rq, findings=found))
        assert await root.receive() == Findings(rq=2, findings=found)
        assert (await refused(root, Examine(rq=3, slave="s2"))).code == "not-linked"


# -- the audit -------------------------------------------------------------------------------------------


async def rows(client: Channel, **fields: int) -> Audit:
    answer = await ask(client, ListAudit(rq=1, **fields))
    assert isinstance(answer, Audit), answer
    return answer


async def test_the_audit_is_read_on_from_where_it_ended(rig: Rig) -> None:
    async with rig.client() as root, rig.client(who=ARTIST) as anna:
        for _ in range(5):
            await rig.submit(anna)
        first = await rows(root, limit=2)
        rest = await rows(root, cursor=first.next)
        ids = [row.id for row in (*first.rows, *rest.rows)]
        assert ids == sorted(set(ids))
        assert len([row for row in (*first.rows, *rest.rows) if row.who == "anna"]) == 5
        nothing = await rows(root, cursor=rest.next)
        assert (nothing.rows, nothing.next) == ((), rest.next)
        last = await rows(root, latest=2)
        assert [row.id for row in last.rows] == ids[-2:]
        assert last.next == rest.next


async def test_who_waits_for_news_of_the_audit_hears_them_at_once(
    rig: Rig, autojump_clock: MockClock
) -> None:
    async with rig.client() as root, rig.client(who=ARTIST) as anna:
        end = (await rows(root)).next
        start = trio.current_time()
        root.send(ListAudit(rq=1, cursor=end, wait_s=30))
        assert await said(root) == []
        await trio.sleep(7)
        await rig.submit(anna)
        answer = await root.receive()
        assert isinstance(answer, Audit)
        assert trio.current_time() - start == pytest.approx(7)
        assert [row.who for row in answer.rows] == ["anna"]
        # Nothing comes: an empty answer in time, and nobody waits for ever.
        root.send(ListAudit(rq=2, cursor=answer.next, wait_s=1e9))
        for _ in range(5):
            await trio.sleep(10)
            root.send(Beat())
        assert await root.receive() == Audit(rq=2, rows=(), next=answer.next)
        assert trio.current_time() - start == pytest.approx(67)


async def test_not_everybody_may_wait_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "_WAITING_MOST", 2)
    async with rig.client() as root, rig.client() as other:
        root.send_many([ListAudit(rq=n, cursor=1000, wait_s=30) for n in (1, 2)])
        assert await said(root) == []
        refusal = await refused(other, ListAudit(rq=1, cursor=1000, wait_s=30))
        assert refusal.code == "too-many"
        # Whoever leaves makes room.
        root.close()
        await trio.testing.wait_all_tasks_blocked()
        other.send(ListAudit(rq=1, cursor=1000, wait_s=30))
        assert await said(other) == []


async def test_the_audit_can_be_read_while_the_disk_is_full(rig: Rig) -> None:
    async with rig.client() as root:
        await rig.submit(root)
        rig.disk.alarm = "no room"
        assert (await rows(root)).rows
        assert (await refused(root, AddLine(rq=1, kind="node"))).code == "disk-full"
        rig.disk.let_go()


# -- cuts ------------------------------------------------------------------------------------------------


async def test_who_is_revoked_is_told_and_cut_with_all_that_is_under_way(rig: Rig) -> None:
    async with rig.client() as root, away(rig) as far, rig.client() as other, rig.slave() as slave:
        watching = await ask(far, Watch(rq=1, jobs=True))
        assert isinstance(watching, Watching)
        far.send(ReadLog(rq=2, slave="s1", key=AttemptKey(1, 0, 0, 1), wait_s=30))
        assert isinstance(await slave.receive(), ReadLog)
        assert isinstance(await ask(root, AccountVerb(rq=1, kind="user", name="joe", verb="revoke")), Done)
        (last,) = [message for message in await said(far) if not isinstance(message, Changed)]
        assert isinstance(last, Rejected)
        assert (last.code, last.retry) == ("not-allowed", False)
        with pytest.raises(LinkClosed):
            await far.receive()
        assert len(rig.clients) == 2
        assert not rig.slaves._links[77].asked
        assert await ask(other, Unwatch(rq=1, watch=watching.watch)) == Done(rq=1, count=0)


async def test_who_was_revoked_on_the_way_in_is_cut_as_well(rig: Rig) -> None:
    """The account went between the handshake and here, when there was no link yet that could be cut."""
    async with rig.client(who=AWAY) as far:
        (last,) = await said(far)
        assert isinstance(last, Rejected)
        assert last.code == "not-allowed"
        with pytest.raises(LinkClosed):
            await far.receive()
    assert len(rig.clients) == 0


async def test_what_is_asked_by_who_is_revoked_meanwhile_is_not_done(rig: Rig) -> None:
    async with rig.client() as root, away(rig) as far:
        job = await rig.submit(root)
        rig.disk.hold_up()
        root.send(AccountVerb(rq=1, kind="user", name="joe", verb="revoke"))
        await trio.testing.wait_all_tasks_blocked()
        # Its link stands until that is committed; what it asks comes after.
        far.send(AddLine(rq=5, kind="user", name="eve", role="admin"))
        await trio.testing.wait_all_tasks_blocked()
        rig.disk.let_go()
        await trio.testing.wait_all_tasks_blocked()
        assert not rig.core.state.register.lines
        assert ("joe", "user eve: add a line as an admin for 3600 s", "not-allowed") in rig.audit()
        assert isinstance(await ask(root, GetJob(rq=2, job=job)), Done | Job)


async def test_nobody_has_more_links_than_their_share(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(clients, "_LINKS_OF_ONE", 2)
    async with rig.client(who=ARTIST) as one, rig.client(who=ARTIST):
        async with rig.client(who=ARTIST) as third, rig.client() as root:
            (last,) = await said(third)
            assert isinstance(last, Rejected)
            assert (last.code, last.retry) == ("too-many", True)
            assert isinstance(await ask(root, WhoAmI(rq=1)), You)
        one.close()
        await trio.testing.wait_all_tasks_blocked()
        async with rig.client(who=ARTIST) as fourth:
            assert isinstance(await ask(fourth, WhoAmI(rq=1)), You)
    assert not rig.clients._links_of
