"""Who tries to be somebody else: nothing comes of it, and the audit tells.

Secrets, lines and disks that were stolen, copied or made up. What people may not do is in
test_hostile_rights, what is thrown at the ports themselves in test_hostile_floods.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from drqueue.access import read_access, write_access
from drqueue.client import WrongCertificate, connect
from drqueue.proto import messages
from drqueue.proto.handshake import HandshakeRejected
from drqueue.proto.lines import TOKEN_BYTES, Line, encoded
from drqueue.proto.link_messages import (
    Acted,
    Exited,
    Held,
    Joined,
    LogKept,
    Orders,
    Progressed,
    Rejected,
    Report,
    TicketKey,
)
from drqueue.proto.model import Exit, LogEnds, SlaveLimits
from drqueue.proto.views import AccountView
from tests.builders import a_hello
from tests.e2e.helpers import until, wait_until
from tests.e2e.hostile import HOST, Impostor, Site, a_site, ends
from tests.master.guests import a_secret
from tests.ports import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("hostile") / "site") as farm:
        yield farm


# -- another machine in the master's place ----------------------------------------------------------------


async def test_a_client_says_nothing_to_another_certificate(site: Site, tmp_path: Path) -> None:
    """Somebody took the master's address: neither a login nor a line's token is told them."""
    with Impostor() as impostor:
        async with site.siege():
            way = structs.replace(site.ways["anna"], port=impostor.port)
            write_access(str(tmp_path / "access.json"), [way])
            env = {"DRQUEUE_ACCESS": str(tmp_path / "access.json"), "HOME": str(tmp_path)}
            with pytest.raises(WrongCertificate):
                async with connect(f"{HOST}:{impostor.port}", env=env):
                    pass
            line = Line(
                kind="user", host=HOST, port=impostor.port, pin=site.pin, token=encoded(bytes(TOKEN_BYTES))
            )
            said = site.cli.run("login", line, status=None)
            assert said.status != 0
            assert "certificate" in said.sentence
        wait_until("both were there", lambda: impostor.met == 2)
        assert impostor.heard == b""


async def test_a_slave_says_nothing_to_another_certificate(site: Site) -> None:
    """The same for a slave that joined, and for one that joins: neither secret nor token leaves it."""
    with Impostor() as impostor:
        async with site.siege():
            state = site.state_of("misled")
            state.mkdir(mode=0o700)
            way = read_access(str(site.state_of("good") / "access.json"))[0]
            write_access(str(state / "access.json"), [structs.replace(way, port=impostor.port)])
            misled = site.start_slave("misled", control=f"{HOST}:{free_port()}")
            log = site.folder / "misled.log"
            wait_until("it knows", lambda: "NOT LINKED" in log.read_text())
            misled.process.terminate()
            line = Line(
                kind="node", host=HOST, port=impostor.port, pin=site.pin, token=encoded(bytes(TOKEN_BYTES))
            )
            said = site.nodes.run("join", line, "--name", "misled2", module="drqueue.slave", status=3)
            assert "certificate" in said.sentence
        wait_until("both were there", lambda: impostor.met == 2)
        assert impostor.heard == b""


# -- lines -------------------------------------------------------------------------------------------------


async def test_a_line_past_its_time_opens_nothing(site: Site) -> None:
    """Used a moment too late, twice."""
    async with site.siege() as siege:
        text = (await siege.admin.ask(messages.AddLine, kind="user", name="late", ttl_s=1)).line
        expires_at = time.time() + 1

        async def over() -> bool:
            return time.time() > expires_at

        await until("its time is over", over)
        source = site.address()
        for _ in range(2):
            answer = await site.join(text, a_secret(), "client", source)
            assert isinstance(answer, Rejected)
            assert (answer.code, answer.retry) == ("bad-line", False)
        await siege.audited("bad-line", "join as user", peer=source)
        await siege.admin.verb("user", "late", "revoke")


async def test_a_line_that_was_used_is_good_for_whoever_used_it_alone(site: Site) -> None:
    """Another secret gets nothing; the same one asks again for free and gets the same account."""
    async with site.admin() as admin:
        text, secret = str(await admin.line("user", name="once")), a_secret()
        first = await site.join(text, secret, "client")
        assert isinstance(first, Joined)
        async with site.siege() as siege:
            source = site.address()
            for _ in range(2):
                answer = await site.join(text, a_secret(), "client", source)
                assert isinstance(answer, Rejected)
                assert answer.code == "bad-line"
            await siege.audited("bad-line", "join as user", peer=source)
            assert await site.join(text, secret, "client", source) == first
        await admin.verb("user", "once", "revoke")


async def test_a_line_for_a_network_is_good_there_alone(site: Site) -> None:
    """From elsewhere it is refused, and not used up."""
    async with site.admin() as admin:
        text = str(await admin.line("node", name="far", net="127.7.0.0/16"))
        async with site.siege() as siege:
            source = site.address()
            for _ in range(2):
                answer = await site.join(text, a_secret(), "slave", source)
                assert isinstance(answer, Rejected)
                assert answer.code == "wrong-net"
            await siege.audited("wrong-net", "join as node", peer=source)
        assert isinstance(await site.join(text, a_secret(), "slave", "127.7.0.1"), Joined)
        await admin.verb("node", "far", "revoke")


# -- secrets in the wrong hands ----------------------------------------------------------------------------


async def test_a_nodes_secret_is_no_clients(site: Site) -> None:
    """Stolen from a node's disk: it opens no client's link, nor another account."""
    async with site.siege() as siege:
        secret, source = site.secret_of_slave("good"), site.address()
        for _ in range(2):
            with pytest.raises(HandshakeRejected, match="opens a slave's link and nothing else") as refused:
                async with site.enter("client", secret, source):
                    pass
            assert refused.value.code == "not-allowed"
        await siege.audited("not-allowed", "link as a client", who="good", peer=source)
        text = str(await siege.admin.line("user", name="thief"))
        answer = await site.join(text, secret, "client", source)
        assert isinstance(answer, Rejected)
        await siege.admin.verb("user", "thief", "revoke")


async def test_a_persons_secret_is_no_slaves(site: Site) -> None:
    """Whoever may submit jobs may not take frames, whatever their role."""
    async with site.siege() as siege:
        source = site.address()
        for name in ("anna", "sue"):
            for _ in range(2):
                with pytest.raises(HandshakeRejected) as refused:
                    async with site.enter("slave", site.ways[name].secret, source):
                        pass
                assert refused.value.code == "not-allowed"
            await siege.audited("not-allowed", "link as a slave", who=name, peer=source)


async def test_a_cloned_node_is_another_node_and_waits(site: Site) -> None:
    """A disk copied to another machine: a new identity and secret, to be approved; the first stays linked."""
    async with site.siege() as siege:
        state = site.state_of("clone")
        shutil.copytree(site.state_of("good"), state, ignore=shutil.ignore_patterns("*.sock", "*lock"))
        identity = json.loads((state / "identity.json").read_text())
        (state / "identity.json").write_text(json.dumps({**identity, "fingerprint": "of another machine"}))
        clone = site.start_slave("clone", control=f"{HOST}:{free_port()}")
        pending: list[AccountView] = []

        async def asks() -> bool:
            answer = await siege.admin.ask(messages.ListAccounts, kind="node", pending=True)
            pending[:] = answer.accounts
            return bool(pending)

        await until("it asks", asks)
        row = await siege.audited("pending", "asks to be approved")
        assert row.text == pending[0].code
        assert pending[0].code in (site.folder / "clone.log").read_text()
        assert json.loads((state / "identity.json").read_text())["id"] != identity["id"]
        assert not (state / "access.json").exists()
        clone.process.terminate()
        clone.finish()
        done = await siege.admin.verb("node", pending[0].code, "reject")
        assert isinstance(done, messages.Done), done


async def test_one_node_has_one_link(site: Site) -> None:
    """A stolen identity and secret, while the node is linked: the second link is refused."""
    async with site.siege() as siege:
        identity = json.loads((site.state_of("good") / "identity.json").read_text())
        source = site.address()
        for _ in range(2):
            async with site.enter("slave", site.secret_of_slave("good"), source) as thief:
                hello = a_hello("thief", identity=identity["id"], fingerprint=identity["fingerprint"])
                thief.channel.send(hello)
                (said,) = await ends(thief.channel)
                assert isinstance(said, Rejected)
                assert said.code == "identity-in-use"
        await siege.audited("identity-in-use", "link slave thief", who="good", peer=source)


# -- what a node says of others ----------------------------------------------------------------------------


async def test_a_node_speaks_for_itself_alone(site: Site) -> None:
    """A node of the farm reports exits, logs and progress of another's frame, and says that it is another."""
    async with site.admin() as admin:
        text, secret = str(await admin.line("node", name="evil")), a_secret()
        assert isinstance(await site.join(text, secret, "slave"), Joined)
        source = site.address()
        hello = a_hello("evil", identity="id-evil", limits=SlaveLimits(enabled=False))
        async with site.enter("slave", secret, source) as evil:
            evil.channel.send(hello)
            await evil.hear(TicketKey)
            async with site.siege() as siege:
                key = await siege.victims_key()
                over = await siege.admin.ask(messages.FindLog, job=site.background, number=1)
                evil.channel.send(Report(progressed=(Progressed(key, 0.9, "mine"),)))
                evil.channel.send(LogKept(key=key, ends=LogEnds(size=4, head=b"evil")))
                evil.channel.send(Report(exited=(Exited(key, Exit(code=0)),)))
                evil.channel.send(LogKept(key=key, ends=LogEnds(size=4, head=b"evil")))
                evil.channel.send(LogKept(key=over.key, ends=LogEnds(size=4, head=b"evil")))
                # What it reports is noted, so that it may forget it, and that is all.
                assert key in (await evil.hear(Orders)).noted
                evil.channel.send(Acted(at=0, who="root", role="admin", peer="uid 0", what="all is well"))
                row = await siege.audited("done", "all is well")
                assert row.peer == "slave evil says: uid 0"
                place = await siege.admin.ask(messages.FindLog, job=key.job, number=1)
                assert (place.key, place.slave, place.over, place.kept) == (key, "good", False, None)
                again = await siege.admin.ask(messages.FindLog, job=site.background, number=1)
                assert (again.key, again.kept) == (over.key, over.kept)
        async with site.siege() as siege:
            victim = json.loads((site.state_of("good") / "identity.json").read_text())
            for _ in range(2):
                async with site.enter("slave", secret, source) as evil:
                    as_another = structs.replace(hello, identity=victim["id"], held=(Held(key),))
                    evil.channel.send(structs.replace(as_another, fingerprint=victim["fingerprint"]))
                    (said,) = await ends(evil.channel)
                    assert isinstance(said, Rejected)
                    assert said.code == "not-yours"
            await siege.audited("not-yours", "as slave good", who="evil", peer=source)
        await admin.verb("node", "evil", "revoke")
        await admin.ask(messages.SlaveVerb, slave="evil", verb="forget")
