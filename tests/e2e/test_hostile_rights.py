"""Who tries more than they may, at the master and at a slave's own port: nothing comes of it.

But rows of the audit, one for each thing that was tried.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from msgspec import structs

from drqueue.access import Access, read_access, write_access
from drqueue.client.login import log_in
from drqueue.proto import messages, tickets
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.link_messages import Rejected, TicketKey
from drqueue.proto.model import JobChange, LimitsChange
from drqueue.proto.tickets import Claim
from tests import secured
from tests.e2e.helpers import until
from tests.e2e.hostile import HOST, Site, a_site, a_spec, ends
from tests.master.guests import Guest, a_secret
from tests.ports import free_port
from tests.slave.scripted_master import SecureMaster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("hostile-rights") / "site") as farm:
        yield farm


# -- viewers -----------------------------------------------------------------------------------------------


async def test_a_viewer_submits_nothing_and_changes_nothing(site: Site) -> None:
    """Every kind of change, asked of the master by somebody who may look alone."""
    spec = a_spec("mine", "1", "true")
    change = JobChange(priority=1)
    key = (site.victim, 0, 0, 1)
    attempts: dict[str, tuple[type[messages.Request], dict[str, Any]]] = {
        "submit job 'mine'": (messages.Submit, {"token": "a viewer's token", "spec": spec}),
        "delete job": (messages.JobVerb, {"job": site.victim, "verb": "delete"}),
        "kill": (messages.FrameVerb, {"job": site.victim, "frames": "1", "verb": "kill"}),
        "change job": (messages.ChangeJob, {"job": site.victim, "change": change}),
        "slave good: kill": (messages.KillAttempts, {"slave": "good", "keys": (key,)}),
        "slave good: set": (messages.SetLimits, {"slave": "good", "change": LimitsChange(enabled=False)}),
        "slave good: forget": (messages.SlaveVerb, {"slave": "good", "verb": "forget"}),
        "user vera: set-role": (
            messages.AccountVerb,
            {"kind": "user", "name": "vera", "verb": "set-role", "role": "admin"},
        ),
        "add a line": (messages.AddLine, {"kind": "user", "name": "friend", "role": "admin"}),
    }
    async with site.siege() as siege, site.dial("vera", site.address()) as vera:
        for what, (kind, fields) in attempts.items():
            assert (await siege.refused(vera, kind, **fields)).code == "not-allowed", what
            if what != "kill":
                await siege.audited("not-allowed", what, who="vera", role="viewer")
        # As an admin reads it.
        audit = await trio.to_thread.run_sync(site.cli.json, "audit")
        (row,) = [row for row in audit if row["what"] == "submit job 'mine'"]
        assert (row["who"], row["outcome"]) == ("vera", "not-allowed")


async def test_a_viewer_reads_no_commands_logs_or_audit(site: Site) -> None:
    """Neither asked for, nor among what a viewer may see, nor in what is told to who watches."""
    async with site.siege() as siege, site.dial("vera", site.address()) as vera:
        key = await siege.victims_key()
        for kind, fields in (
            (messages.GetSpec, {"job": site.victim}),
            (messages.FindLog, {"job": site.victim, "number": 1}),
            (messages.ReadLog, {"slave": "good", "key": key}),
            (messages.ReadLog, {"key": key}),
            (messages.ListAudit, {}),
            (messages.ListAccounts, {"kind": "user"}),
            (messages.Examine, {"slave": "good"}),
        ):
            assert (await siege.refused(vera, kind, **fields)).code == "not-allowed", kind
        await siege.audited("not-allowed", "see the commands", who="vera")
        await siege.audited("not-allowed", "read a log", who="vera")
        await siege.audited("not-allowed", "read the audit", who="vera")
        job = await vera.ask(messages.GetJob, job=site.victim)
        assert [layer.command for layer in job.layers] == [""]
        assert "sleep" in (await siege.admin.ask(messages.GetJob, job=site.victim)).layers[0].command


async def test_a_viewer_is_one_at_a_slaves_own_port_too(site: Site) -> None:
    """With a good ticket: no log, no limits, no kill."""
    async with site.siege() as siege, AsyncExitStack() as stack:
        source = site.address()
        vera = await stack.enter_async_context(site.dial("vera", source))
        ticket = await vera.ask(messages.GetTicket, slave="good")
        direct = await stack.enter_async_context(site.by_ticket(ticket, source))
        key = await siege.victims_key()
        for kind, fields, what in (
            (messages.ReadLog, {"key": key}, "read a log"),
            (messages.KillAttempts, {"keys": (key,)}, "kill 1 frame"),
            (messages.SetLimits, {"change": LimitsChange(enabled=False)}, "set enabled=no"),
        ):
            assert (await siege.refused(direct, kind, **fields)).code == "not-allowed"
            row = await siege.audited("not-allowed", f"slave good: {what}", who="vera")
            assert row.peer == f"slave good says: {source}"
        assert isinstance(await direct.ask(messages.GetSlave), messages.SlaveInfo)


# -- artists -----------------------------------------------------------------------------------------------


async def test_an_artist_does_nothing_to_anothers_job(site: Site) -> None:
    """Every verb on the job and its frames, a change of it, and its attempts by way of the master."""
    async with site.siege() as siege, site.dial("bert", site.address()) as bert:
        key, job = await siege.victims_key(), site.victim
        for verb in ("delete", "stop", "hard-stop", "continue", "rerun"):
            assert "anna" in (await siege.refused(bert, messages.JobVerb, job=job, verb=verb)).text
            await siege.audited("not-allowed", who="bert", what=f"{verb} job {job} 'victim'")
        for verb in ("kill", "requeue", "finish", "reset-requeued"):
            await siege.refused(bert, messages.FrameVerb, job=job, frames="1", verb=verb, now=True)
            await siege.audited("not-allowed", f"frames 1 of job {job}", verb, who="bert")
        await siege.refused(
            bert, messages.ChangeJob, job=job, change=JobChange(frames="2-3", block=("good",))
        )
        await siege.audited("not-allowed", f"change job {job}", who="bert")
        for fields in ({"keys": (key,)}, {"job": job}, {"job": 7, "keys": (key,)}, {}):
            said = await siege.refused(bert, messages.KillAttempts, slave="good", **fields)
            assert said.code == "not-allowed"
        await siege.audited("not-allowed", "kill 1 frame of", who="bert")
        await siege.audited("not-allowed", "kill all frames", who="bert")


async def test_an_artist_kills_nothing_of_anothers_at_a_slaves_own_port(site: Site) -> None:
    """With a good ticket, by attempt and by job."""
    async with site.siege() as siege, AsyncExitStack() as stack:
        source = site.address()
        bert = await stack.enter_async_context(site.dial("bert", source))
        direct = await stack.enter_async_context(
            site.by_ticket(await bert.ask(messages.GetTicket, slave="good"), source)
        )
        key = await siege.victims_key()
        for fields, what in (
            ({"keys": (key,)}, "kill 1 frame"),
            ({"job": site.victim}, "kill all frames"),
        ):
            said = await siege.refused(direct, messages.KillAttempts, **fields)
            assert (said.code, "anna" in said.text) == ("not-allowed", True)
            await siege.audited("not-allowed", f"slave good: {what} of job {site.victim}", who="bert")
        await siege.refused(direct, messages.SetLimits, change=LimitsChange(enabled=False))
        await siege.audited("not-allowed", "slave good: set enabled=no", who="bert")


async def test_an_artist_is_not_ahead_of_the_check(site: Site) -> None:
    """Requests about a job that is not there yet, in one write, while its owner submits it."""
    async with (
        site.siege() as siege,
        site.dial("bert", site.address()) as bert,
        site.dial("anna") as anna,
    ):
        jobs = (await siege.admin.ask(messages.ListJobs, all=True)).jobs
        own = await bert.submit(a_spec("bert's", "1", "true", stopped=True))
        assert own > max(job.id for job in jobs)
        ahead: list[messages.Request] = []
        # The last of these never comes.
        for target in (own + 1, own + 2, own + 3):
            for rq in range(1000 * target, 1000 * target + 100, 5):
                ahead += [
                    messages.JobVerb(rq=rq, job=target, verb="delete"),
                    messages.JobVerb(rq=rq + 1, job=target, verb="continue"),
                    messages.ChangeJob(rq=rq + 2, job=target, change=JobChange(priority=1)),
                    messages.FrameVerb(rq=rq + 3, job=target, frames="1", verb="kill"),
                    messages.KillAttempts(rq=rq + 4, slave="good", job=target),
                ]
        bert.channel.send_many(ahead)
        anna.channel.send_many(
            messages.Submit(
                rq=90 + n, token=f"ahead-{n}-{site.port}", spec=a_spec("next", "1", "true", stopped=True)
            )
            for n in range(2)
        )
        submitted = [await anna.hear(messages.Submitted) for _ in range(2)]
        assert [answer.job for answer in submitted] == [own + 1, own + 2]
        for _ in ahead:
            assert (await bert.hear(messages.Refusal)).code in ("no-such-job", "not-allowed")
        for answer in submitted:
            view = (await siege.admin.ask(messages.GetJob, job=answer.job)).job
            assert (view.state, view.priority, view.counts.waiting) == ("STOPPED", 500, 1)
        assert await siege.rows("not-allowed", who="bert")
        await remove(siege.admin, own, own + 1, own + 2)


async def remove(admin: Guest, *jobs: int) -> None:
    """Delete jobs that a test made."""
    for job in jobs:
        done = await admin.ask(messages.JobVerb, job=job, verb="delete")
        assert isinstance(done, messages.Done), done


async def test_an_artist_goes_no_higher_than_artists_may(site: Site) -> None:
    """A priority above artist_max_priority, at once and as a change of an own job; the highest is allowed."""
    async with site.siege() as siege, site.dial("bert", site.address()) as bert:
        spec = a_spec("high", "1", "true", stopped=True)
        too_high = structs.replace(spec, priority=1001)
        said = await siege.refused(bert, messages.Submit, token="as high as it goes", spec=too_high)
        assert said.code == "not-allowed"
        await siege.audited("not-allowed", "submit job 'high'", who="bert")
        job = await bert.submit(structs.replace(spec, priority=1000))
        await siege.refused(bert, messages.ChangeJob, job=job, change=JobChange(priority=1001))
        await siege.audited("not-allowed", f"change job {job} 'high': priority=1001", who="bert")
        assert (await bert.ask(messages.GetJob, job=job)).job.priority == 1000
        await remove(siege.admin, job)


async def test_a_token_is_its_owners(site: Site) -> None:
    """Somebody learned another's token: they get neither the job nor its number."""
    async with site.siege() as siege, site.dial("bert", site.address()) as bert, site.dial("anna") as anna:
        token, spec = secrets.token_hex(16), a_spec("token", "1", "true", stopped=True)
        first = await anna.ask(messages.Submit, token=token, spec=spec)
        said = await siege.refused(bert, messages.Submit, token=token, spec=spec)
        assert said.code == "not-allowed"
        assert str(first.job) not in said.text
        await siege.audited("not-allowed", "submit job 'token'", who="bert")
        again = await anna.ask(messages.Submit, token=token, spec=spec)
        assert (again.job, again.again) == (first.job, True)
        await remove(siege.admin, first.job)


# -- tickets -----------------------------------------------------------------------------------------------


async def test_a_ticket_ends_with_its_persons_access(site: Site) -> None:
    """Revoked while the link that it opened stands: both links are cut, the ticket opens nothing more."""
    async with site.siege() as siege, AsyncExitStack() as stack:
        env, source = site.person("dora"), site.address()
        await log_in(str(await siege.admin.line("user", name="dora")), env)
        site.ways["dora"] = read_access(env["DRQUEUE_ACCESS"])[0]
        dora = await stack.enter_async_context(site.dial("dora", source))
        ticket = await dora.ask(messages.GetTicket, slave="good")
        direct = await stack.enter_async_context(site.by_ticket(ticket, source))
        assert isinstance(await direct.ask(messages.GetSlave), messages.SlaveInfo)
        await siege.admin.verb("user", "dora", "revoke")
        for guest in (dora, direct):
            said = await ends(guest.channel)
            assert isinstance(said[-1], Rejected)
        with pytest.raises(HandshakeRejected) as refused:
            await stack.enter_async_context(site.by_ticket(ticket, source))
        assert refused.value.code == "bad-ticket"
        with pytest.raises(HandshakeRejected) as refused:
            await stack.enter_async_context(site.dial("dora", source))
        assert refused.value.code == "no-account"
        await siege.audited("no-account", "link as a client", peer=source)
        # Others get a new one, unseen.
        bert = await stack.enter_async_context(site.dial("bert", source))
        fresh = await bert.ask(messages.GetTicket, slave="good")
        await stack.enter_async_context(site.by_ticket(fresh, source))


async def test_a_slave_takes_no_ticket_that_was_made_up(site: Site) -> None:
    """Too old, from too far ahead, of another slave, of another key, altered, cut off, for no role of people.

    The master is played here, so that tickets are made with the key that the slave really has.
    """
    master, slave = SecureMaster(), 7
    async with site.siege():
        state = site.state_of("ticketed")
        state.mkdir(mode=0o700)
        certificate, private = secured.certificate()
        way = Access(
            host=HOST, port=master.port, pin=master.pin, farm=master.farm, account="acc", name="ticketed",
            role="node", secret=a_secret(), certificate=certificate, key=private,
        )  # fmt: skip
        write_access(str(state / "access.json"), [way])
        running = site.start_slave("ticketed", control=f"{HOST}:{free_port()}")
        async with master.link(timeout_s=30) as link:
            hello = await link.register(slave, "ticketed")
            key, now = secrets.token_bytes(32), time.time()
            link.channel.send(TicketKey(key=key, now=now))
            good = Claim("anna", "artist", "acc", slave, now + tickets.LIFE_S)
            real = tickets.issue(good, key)
            made_up = {
                "too old": (tickets.issue(structs.replace(good, expires_at=now - 1), key), "old-ticket"),
                "too new": (tickets.issue(structs.replace(good, expires_at=now + 86400), key), "old-ticket"),
                "another slave's": (tickets.issue(structs.replace(good, slave=slave + 1), key), "bad-ticket"),
                "another key's": (tickets.issue(good, secrets.token_bytes(32)), "bad-ticket"),
                "a node's": (tickets.issue(structs.replace(good, role="node"), key), "bad-ticket"),
                "altered": (real.replace(b"artist", b"viewer"), "bad-ticket"),
                "cut off": (real[:40], "bad-ticket"),
                "none": (b"", "bad-ticket"),
            }

            async def opens(ticket: bytes) -> str:
                shown = messages.Ticket(
                    rq=0,
                    slave=slave,
                    name="ticketed",
                    control=hello.control,
                    pin=secured.pin(),
                    ticket=ticket,
                )
                try:
                    async with site.by_ticket(shown) as guest:
                        assert isinstance(await guest.ask(messages.GetSlave), messages.SlaveInfo)
                except HandshakeRejected as no:
                    return no.code
                return "opened"

            async def key_is_known() -> bool:
                return await opens(real) == "opened"

            await until("the slave has its key", key_is_known)
            assert {what: await opens(ticket) for what, (ticket, _) in made_up.items()} == {
                what: code for what, (_, code) in made_up.items()
            }
            assert await opens(real) == "opened"
            running.process.terminate()
        await trio.to_thread.run_sync(running.finish)
    master.close()
