"""F5: the network between master and slaves is cut in every way, for moments and for longer than a lease."""

from pathlib import Path
from random import Random

import pytest
import trio

from tests.faults import levels
from tests.faults.farm import a_farm_at_work, a_farm_behind_proxies, joined, linked
from tests.faults.proxy import Proxy
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(levels.timeout_s())]

LEASE_S = 2.0
#: Silence is noticed within moments, and a lease is shorter than many cuts.
HASTY = {"DRQUEUE_BEAT_S": "0.4", "DRQUEUE_SILENCE_S": "1.2", "DRQUEUE_LEASE_S": str(LEASE_S)}
HOW = ("both", "up", "down", "rst", "fin", "half-up", "half-down", "away", "slow", "narrow")


async def cut(proxy: Proxy, how: str, seconds: float, rng: Random) -> None:
    """Do that to all links of a proxy for so long, then heal it."""
    match how:
        case "both":
            proxy.up.hold()
            proxy.down.hold()
        case "up":
            proxy.up.hold()
        case "down":
            proxy.down.hold()
        case "rst" | "fin":
            proxy.cut("rst" if how == "rst" else "fin")
        case "half-up" | "half-down":
            proxy.half_close(up=how == "half-up")
        case "away":
            proxy.refusing = True
            proxy.cut("rst")
        case "slow":
            proxy.up.delay(lambda: rng.uniform(0, seconds))
            proxy.down.delay(lambda: rng.uniform(0, seconds))
        case "narrow":
            proxy.up.throttle(2000)
            proxy.down.throttle(2000)
    await trio.sleep(seconds)
    proxy.heal()


async def cut_one_after_another(proxy: Proxy, times: int, rng: Random) -> None:
    """So many cuts of one slave's network, of all kinds."""
    ways: list[str] = []
    for _ in range(times):
        ways = ways or rng.sample(HOW, len(HOW))
        longest_s = rng.choice((0.5, LEASE_S, 2 * LEASE_S))
        await cut(proxy, ways.pop(), rng.uniform(0.05, longest_s), rng)
        await trio.sleep(rng.uniform(0, 0.5))


async def test_f5_cut_networks(tmp_path: Path) -> None:
    """I2-I5, I11: frames end once or were killed first; when the network is back, all comes to its end.

    Each slave has a network of its own, and its cuts come when they come: what is a swizzle-clog elsewhere.
    """
    rng = levels.rng("F5")
    cuts = levels.count("F5", ci=30, nightly=500, release=2_000)
    slaves = levels.count("slaves", ci=3, nightly=8, release=20)
    async with a_farm_behind_proxies(tmp_path, rng, slaves, **HASTY) as (_farm, _client, oracle, proxies):
        async with trio.open_nursery() as feeding:
            feeding.start_soon(oracle.feed)
            async with trio.open_nursery() as cutting:
                for nth, proxy in enumerate(proxies):
                    cutting.start_soon(cut_one_after_another, proxy, (cuts + nth) // slaves, rng)
            feeding.cancel_scope.cancel()
        assert sum(len(proxy.sessions) for proxy in proxies) > slaves
        # A slave that heard nothing for a lease killed its frames: they are tried again, never beside one.
        assert await oracle.violations(lost={"lease"}) == []


async def test_f5_cut_networks_over_tls(tmp_path: Path) -> None:
    """The same over TCP and TLS, where a reset is a real one."""
    rng = levels.rng("F5-tls")
    cuts = levels.count("F5-tls", ci=6, nightly=100, release=500)
    async with Proxy("") as proxy:
        proxy.target = f"127.0.0.1:{free_port()}"
        env = {"DRQUEUE_LISTEN": proxy.target, "DRQUEUE_ADDRESS": proxy.address}
        env["DRQUEUE_CONTROL_LISTEN"] = f"127.0.0.1:{free_port()}"
        async with a_farm_at_work(tmp_path, rng, slaves=0, most_s=1.0, **HASTY, **env) as (
            farm,
            client,
            oracle,
        ):
            await joined(proxy, farm, client, "s1", cores=3)
            await linked(client, 1)
            async with trio.open_nursery() as feeding:
                feeding.start_soon(oracle.feed)
                await cut_one_after_another(proxy, cuts, rng)
                feeding.cancel_scope.cancel()
            assert await oracle.violations(lost={"lease"}) == []


async def test_f5_a_cut_that_outlasts_the_masters_patience(tmp_path: Path) -> None:
    """The master gives frames away at last, and not before their slave has killed them."""
    rng = levels.rng("F5-long")
    cuts = levels.count("F5-long", ci=0, nightly=2, release=10)
    if not cuts:
        pytest.skip("takes minutes each")
    async with a_farm_behind_proxies(tmp_path, rng, 2, **HASTY) as (_farm, _client, oracle, proxies):
        for _ in range(cuts):
            await oracle.submit(30)
            await trio.sleep(1.0)
            await cut(proxies[0], "both", 2 * LEASE_S + 130.0, rng)
        assert await oracle.violations(lost={"lease"}) == []
