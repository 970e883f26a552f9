"""F6: messages that come twice, late, out of order, or out of an old session.

Sockets keep all of this away from a link; whoever relays them, a bug, or a future transport may not.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import trio

from tests.e2e.helpers import until
from tests.faults import levels
from tests.faults.farm import Sayings, a_farm_at_work, a_farm_behind_proxies, joined, kill, linked
from tests.faults.proxy import Proxy
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

LIVELY = {"DRQUEUE_BEAT_S": "0.2", "DRQUEUE_SILENCE_S": "2"}
#: First words of either side: packets after them are a link's own.
GREETINGS = (b"\xa1t\xa2hi", b"\xa1t\xa7welcome")


class Shuffler:
    """Doubles, swaps, delays and repeats the packets of one direction of one slave's links."""

    def __init__(self, rng: Random, share: float, count: Callable[[], None]) -> None:
        self._rng = rng
        self._share = share
        self._count = count
        self._said: list[bytes] = []
        self._late: list[bytes] = []
        self.harmed = 0

    def __call__(self, packet: bytes) -> list[bytes]:
        self._count()
        if any(greeting in packet[:16] for greeting in GREETINGS):
            self._said, self._late = [], []
            return [packet]
        late, self._late = self._late, []
        out = [packet]
        if self._said and self._rng.random() < self._share:
            self.harmed += 1
            match self._rng.choice(("twice", "later", "old")):
                case "twice":
                    out = [packet, packet]
                case "later":
                    out, self._late = [], [packet]
                case "old":
                    out = [packet, self._rng.choice(self._said)]
        self._said.append(packet)
        return out + late


async def test_f6_doubled_late_and_out_of_order(tmp_path: Path) -> None:
    """I4, I5: what cannot have been said so ends the link, and the next one tells what is true."""
    rng = levels.rng("F6")
    wanted = levels.count("F6", ci=1_500, nightly=100_000, release=1_000_000)
    longest_s = {"ci": 0.2, "nightly": 5.0, "release": 20.0}[levels.level()]
    seen = 0
    enough = trio.Event()

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen >= wanted:
            enough.set()

    async with a_farm_behind_proxies(tmp_path, rng, 2, most_s=0.1, **LIVELY) as (_, client, oracle, proxies):
        shufflers = [Shuffler(rng, 0.02, count) for _ in range(4)]
        for nth, proxy in enumerate(proxies):
            proxy.up.packets, proxy.down.packets = shufflers[2 * nth : 2 * nth + 2]
            for direction in (proxy.up, proxy.down):
                direction.delay(lambda: rng.random() ** 8 * longest_s)
        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            await enough.wait()
            feeding.cancel_scope.cancel()
        for proxy in proxies:
            proxy.heal()
            proxy.cut("fin")  # what was held back to be late is nobody's now
        await linked(client, 2)
        assert sum(shuffler.harmed for shuffler in shufflers) > wanted / 200
        assert await oracle.violations() == []


async def test_f6_a_master_of_an_old_session_starts_nothing(tmp_path: Path) -> None:
    """I17: a slave that saw a newer epoch obeys no word of an older one."""
    rng = levels.rng("F6-old")
    async with a_farm_behind_proxies(tmp_path, rng, 1, most_s=0.1, **LIVELY) as (
        farm,
        client,
        oracle,
        (proxy,),
    ):
        job = await oracle.submit(8)
        await oracle.finished()
        old = bytes(proxy.sessions[-1].said_down)
        assert b"\xa3run" in old
        await kill(farm.master)
        await farm.master.start()
        await oracle.submit(3)
        await oracle.finished()  # so it was linked to the new one
        before = len(oracle.lines())
        sayings = Sayings(farm.slaves[0])
        proxy.impersonating = old
        proxy.cut("fin")
        await sayings.come("an older copy of the farm's database must not run frames")
        proxy.heal()
        assert len(oracle.lines()) == before
        assert (await client.job(job))[0].counts.running == 0
        assert await oracle.violations() == []


async def test_f6_a_slave_of_an_old_session_changes_nothing(tmp_path: Path) -> None:
    """I4, I5: its words said again beside the link that stands: they are turned away."""
    rng = levels.rng("F6-slave")
    times = levels.count("F6-slave", ci=3, nightly=50, release=200)
    async with a_farm_behind_proxies(tmp_path, rng, 1, most_s=0.3, **LIVELY) as (_, client, oracle, (proxy,)):
        for _ in range(times):
            await oracle.submit(12)

            async def some_are_done() -> bool:
                return any(view.counts.running and view.counts.done for view in await client.jobs())

            await until("the middle of a job", some_are_done)
            # As far as that session has come: it says that frames ended which the master may not have noted.
            heard = await proxy.replay(bytes(proxy.sessions[-1].said_up))
            assert b"registered" not in heard
            proxy.cut("rst")
            await linked(client, 1)
        assert await oracle.violations() == []


async def test_f6_an_old_session_is_worth_nothing_over_tls(tmp_path: Path) -> None:
    """Bytes of an encrypted link, said again, are no link."""
    rng = levels.rng("F6-tls")
    async with Proxy("") as proxy:
        proxy.target = f"127.0.0.1:{free_port()}"
        env = {"DRQUEUE_LISTEN": proxy.target, "DRQUEUE_ADDRESS": proxy.address, **LIVELY}
        env["DRQUEUE_CONTROL_LISTEN"] = f"127.0.0.1:{free_port()}"
        async with a_farm_at_work(tmp_path, rng, slaves=0, **env) as (farm, client, oracle):
            await joined(proxy, farm, client, "s1", cores=3)
            await oracle.submit(6)
            await oracle.finished()
            last = proxy.sessions[-1]
            sayings = Sayings(farm.master)
            for session in list(proxy.sessions):
                await proxy.replay(bytes(session.said_up))
            assert "slave linked" not in sayings
            assert last in proxy.live
            assert await oracle.violations() == []
