"""F14: clients that never read, handshakes that never end, links whose other end is gone, all at once.

The master keeps little for each of them, and drops them; people log in, frames are dispatched, and no step of
its loop is longer for it. What that costs is measured in CPU time of its thread and in its own memory.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from subprocess import PIPE

import psutil
import pytest
import trio

from drqueue.client import connect
from drqueue.proto import messages
from drqueue.wire import OUTBOX_SHARE, OUTBOXES_LIMIT
from tests.e2e.helpers import until
from tests.e2e.hostile import HOST, Siege, Site, a_site
from tests.e2e.test_hostile_floods import KEPT_MS, slowly
from tests.faults import levels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

#: A client that does not fetch its answers is not asked for more; some are under way by then.
KEPT_BYTES = 2 << 20
#: Kilobytes that all else may take.
BESIDES_KB = 16 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("slow-clients") / "site") as farm:
        yield farm


@asynccontextmanager
async def never_reading(site: Site, source: str, deaf: int, silent: int) -> AsyncIterator[None]:
    """Clients of Vera's that have asked all they could."""
    words = (site.port, source, site.ways["vera"].secret, site.background, deaf, silent)
    argv = [sys.executable, "-m", "tests.faults.deaf_clients", *map(str, words)]
    process = await trio.lowlevel.open_process(argv, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            with trio.fail_after(120):
                assert (await process.stdout.receive_some()).startswith(b"ready")
            yield
        finally:
            await process.stdin.aclose()
            with trio.CancelScope(shield=True):
                await process.wait()
    assert process.returncode == 0


def links_from(site: Site, source: str) -> int:
    """How many links the master has from an address."""
    found = psutil.Process(site.master.process.pid).net_connections("tcp4")
    return sum(bool(one.raddr) and one.raddr[0] == source for one in found)


async def test_f14_i14_p7_slow_and_dead_clients_hold_nobody_up(site: Site) -> None:
    """What is kept for them is bounded, and those that read nothing, or say nothing, are dropped in time."""
    rounds = levels.count("F14", ci=1, nightly=10, release=100)
    deaf, slow, silent = {"ci": (20, 60, 20), "nightly": (60, 200, 200), "release": (200, 200, 1000)}[
        levels.level()
    ]
    # Together they are bounded too.
    most_kb = min(deaf * KEPT_BYTES, OUTBOXES_LIMIT + deaf * OUTBOX_SHARE) // 1024 + BESIDES_KB
    for _ in range(rounds):
        async with site.siege() as siege:
            source, before = site.address(), site.forget_peak()
            site.busiest()
            async with slowly(site, slow, slow), never_reading(site, source, deaf, silent):
                assert links_from(site, source) == deaf + silent
                await goes_on(site, siege)
                await until("what is kept for them grows no more", Settled(site, before).look, 60)
                longest = site.busiest()
                print(f"grown by {site.grown(before)} kB of {most_kb}; {longest}")
                assert site.grown(before) < most_kb
                assert longest["step"] < 2 * KEPT_MS
                # Half a minute later; in every run of the tests on a clock of its own, in test_channel.
                if levels.level() != "ci":
                    await until("all are dropped", partial(are_gone, site, siege, source), 120)
            await until("all are gone", partial(are_gone, site, siege, source))


class Settled:
    """Whether the master's memory has hardly grown for three seconds: it renders meanwhile."""

    def __init__(self, site: Site, before: int) -> None:
        self._site = site
        self._before = before
        self._seen = [0]

    async def look(self) -> bool:
        """To be asked ten times a second."""
        self._seen = [*self._seen[-30:], self._site.grown(self._before)]
        return len(self._seen) == 31 and self._seen[-1] - self._seen[0] < 512


async def are_gone(site: Site, siege: Siege, source: str) -> bool:
    accounts = (await siege.admin.ask(messages.ListAccounts, kind="user")).accounts
    return not links_from(site, source) and not any(account.linked for account in accounts)


async def goes_on(site: Site, siege: Siege) -> None:
    """Frames are dispatched, somebody logs in, and is answered."""
    await siege.dispatched()
    async with connect(f"{HOST}:{site.port}", env=site.person("anna"), patience_s=40) as anna:
        assert (await anna.whoami()).name == "anna"
        assert (await anna.job(site.background))[0].counts.total == 100_000
    await siege.dispatched()
