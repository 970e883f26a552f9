"""What is thrown at the ports of a farm, many times or very large: it stays small, and the farm goes on.

How long the master's loop was kept is measured in CPU time of its thread, in the master itself (`watched`):
a busy machine makes no difference.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from subprocess import PIPE

import pytest
import trio

from drqueue.client import connect
from drqueue.proto import messages
from drqueue.proto.lines import TOKEN_BYTES, Line, encoded
from tests.e2e.helpers import until
from tests.e2e.hostile import HOST, Siege, Site, a_site
from tests.master.guests import Guest, a_secret
from tests.ports import free_port

pytestmark = pytest.mark.slow

#: Milliseconds that the loop may be kept at once, and kilobytes that the master may grow by.
KEPT_MS = 50.0
GROWN_KB = 64 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("hostile-floods") / "site") as farm:
        yield farm


async def counted(siege: Siege, source: str, at_least: int, rows: int) -> None:
    """Return once the audit says how often, in few rows; somebody else's mistake makes it look."""
    line = Line(kind="user", host=HOST, port=1, pin=siege.site.pin, token=encoded(bytes(TOKEN_BYTES)))
    told = 0

    async def written() -> bool:
        nonlocal told
        await siege.site.join(str(line), a_secret(), "client")
        page = await siege.since()
        mine = [row for row in page if source in row.peer]
        assert len(mine) <= rows, mine
        told = sum(row.count for row in mine)
        return told >= at_least

    try:
        await until(f"{at_least} are counted", written, patience_s=60)
    except AssertionError:
        raise AssertionError(f"{told} of {at_least} are counted") from None


@pytest.mark.parametrize("at", ["master", "slave"])
async def test_a_port_speaks_tls_alone(site: Site, at: str) -> None:
    """Plain words, HTTP, noise, TLS 1.2; and TLS with anything but a first word that proves who it is."""
    async with site.siege() as siege:
        source = site.address()
        port = site.port if at == "master" else site.control
        ends = await site.attack(source, "other-tongues", port=port)
        refused = "no-account" if at == "master" else "bad-ticket"
        assert ends == {"closed": 7, refused: 1}
        if at == "master":
            await siege.audited("failed", "open a link", peer=source)
        else:
            assert f"peer={source}" in (site.folder / "good.log").read_text()


async def test_ten_thousand_bad_logins_are_a_few_rows(site: Site) -> None:
    """1,000 with secrets that nobody has, 9,000 that end before TLS does: refused and counted."""
    async with site.siege() as siege:
        source, before = site.address(), site.forget_peak()
        ends = await site.attack(source, "bad-logins", 1000, 9000)
        assert set(ends) <= {"no-account", "closed"}
        assert ends.total() == 10_000
        await siege.audited("no-account", "link as a client", peer=source)
        await counted(siege, source, ends["no-account"], rows=3)
        assert site.grown(before) < GROWN_KB


async def test_first_words_stay_small(site: Site) -> None:
    """A packet of 4 GB, and bombs of 4 kB: nothing is waited for, nothing is held."""
    async with site.siege() as siege:
        source, before = site.address(), site.forget_peak()
        site.busiest()
        ends = await site.attack(source, "early")
        assert set(ends) == {"closed"}
        assert site.busiest()["step"] < KEPT_MS
        assert site.grown(before) < GROWN_KB
        await siege.audited("failed", "open a link", peer=source)


async def test_bombs_of_somebody_who_logged_in_go_off_quietly(site: Site) -> None:
    """Packets of 256 kB, nested, wide, or lying about lengths, from a viewer."""
    async with site.siege():
        source, before = site.address(), site.forget_peak()
        site.busiest()
        ends = await site.attack(source, "trusted", site.ways["vera"].secret, 5)
        assert set(ends) == {"closed"}
        longest = site.busiest()
        assert longest["step"] < KEPT_MS
        assert longest["turn"] < KEPT_MS
        assert site.grown(before) < GROWN_KB


async def test_slow_handshakes_keep_nobody_out(site: Site) -> None:
    """200 silent links and 200 that say a byte now and then, begun again and again: people log in, slaves
    link."""
    async with site.admin() as admin:
        await site.join_slave(admin, "second")
        async with site.siege() as siege, slowly(site, 0, 200), slowly(site, 200, 0):
            before = site.forget_peak()
            async with connect(f"{HOST}:{site.port}", env=site.person("anna"), patience_s=40) as anna:
                assert (await anna.whoami()).name == "anna"
            second = site.start_slave("second", control=f"{HOST}:{free_port()}")
            await is_linked(siege.admin, "second", True)
            second.process.terminate()
            await trio.to_thread.run_sync(second.finish)
            await is_linked(siege.admin, "second", False)
            await admin.ask(messages.SlaveVerb, slave="second", verb="forget")
            assert site.grown(before) < GROWN_KB
        await admin.verb("node", "second", "revoke")


@asynccontextmanager
async def slowly(site: Site, silent: int, slow: int) -> AsyncIterator[None]:
    """Links that never get anywhere, from an address of their own."""
    argv = site.attacker(site.address(), "slow", silent, slow)
    attacker = await trio.lowlevel.open_process(argv, stdin=PIPE, stdout=PIPE)
    assert attacker.stdin is not None
    assert attacker.stdout is not None
    async with attacker.stdin, attacker.stdout:
        assert (await attacker.stdout.receive_some()).startswith(b"ready")
        try:
            yield
        finally:
            await attacker.stdin.aclose()
            with trio.CancelScope(shield=True):
                await attacker.wait()
    assert attacker.returncode == 0


async def is_linked(admin: Guest, name: str, linked: bool) -> None:
    """Return once a slave is linked, or is not."""

    async def look() -> bool:
        slaves = (await admin.ask(messages.ListSlaves)).slaves
        return [slave.linked for slave in slaves if slave.name == name] == [linked]

    await until(f"{name} is {'linked' if linked else 'gone'}", look)


async def test_a_client_has_a_hundred_watches(site: Site) -> None:
    """Of 5,000 that it asks for the rest is refused; the news of those that stand keep nobody."""
    async with site.siege() as siege, site.dial("vera", site.address()) as vera:
        before = site.forget_peak()
        site.busiest()
        vera.channel.send_many(
            messages.Watch(rq=rq, jobs=True, slaves=True, job=site.background) for rq in range(5000)
        )
        answers: list[messages.Request] = []
        with trio.fail_after(60):
            while len(answers) < 5000:
                message = await vera.channel.receive()
                if isinstance(message, messages.Request):
                    answers.append(message)
        assert sum(isinstance(answer, messages.Watching) for answer in answers) == 100
        codes = {answer.code for answer in answers if isinstance(answer, messages.Refusal)}
        assert codes == {"too-many"}
        await siege.dispatched()
        assert site.busiest()["step"] < KEPT_MS
        assert site.grown(before) < GROWN_KB


async def test_a_flood_of_refusals_is_a_small_audit(site: Site) -> None:
    """5,000 times the same, and 2,000 different things that a viewer may not do: a few rows."""
    async with site.siege() as siege:
        source = site.address()
        async with site.dial("vera", source) as vera:
            site.busiest()
            same = [messages.JobVerb(rq=rq, job=site.victim, verb="delete") for rq in range(5000)]
            other = [messages.JobVerb(rq=rq, job=rq, verb="delete") for rq in range(5000, 7000)]
            vera.channel.send_many([*same, *other])
            for _ in range(7000):
                assert (await vera.hear(messages.Refusal)).code == "not-allowed"
            assert site.busiest()["step"] < KEPT_MS
        rows = [row for row in await siege.since() if source in row.peer]
        assert len(rows) <= 60, rows
