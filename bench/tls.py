"""`python -m bench tls`: what closed links cost, measured at a real master on this machine.

links          links that show a secret, LANES at a time: TLS handshake, Hi, Welcome
messages       Beats there and back on one link, BURST in flight, over TLS and over the Unix socket
slaves         so many joined slaves whose links all end at once: until the last one is registered again

CPU of the server is the master's alone, CPU of the client that of this process.
"""

import argparse
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import trio
from msgspec import Struct

from bench.procs import Sample, sample
from bench.table import Row, machine, medians, show
from drqueue.address import Address
from drqueue.channel import Channel, LinkClosed
from drqueue.client import AsyncClient
from drqueue.client.farm import LocalFarm, local_farm
from drqueue.dialling import open_channel
from drqueue.proto import lines
from drqueue.proto.errors import RemoteProtocolError
from drqueue.proto.handshake import Dialler
from drqueue.proto.link_messages import Beat, Hello, Join, Joined, LinkRole, Registered
from drqueue.proto.messages import AccountKind
from drqueue.proto.model import MachineInfo, SlaveLimits

LANES = 16
BURST = 64
_RETRY_S = 0.2
#: A busy machine measures slowly, but it measures.
_PATIENCE_S = 60.0


class Door(Struct, frozen=True):
    """Where the master is by TLS, and what lets in."""

    address: Address
    pin: str
    secret: str


def main(arguments: list[str]) -> None:
    """Run this bench; prints a table, or JSON with --json."""
    parser = argparse.ArgumentParser(
        prog="bench tls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--links", type=int, default=1000, help="links of a round")
    parser.add_argument("--messages", type=int, default=20_000, help="messages of a round, each way")
    parser.add_argument("--slaves", type=int, default=500, help="slaves that come back")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is shown")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(arguments)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="drqueue-bench-") as folder:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds} ...", file=sys.stderr, flush=True)
            state_dir = os.path.join(folder, str(number))
            rounds.append(trio.run(measure_tls, state_dir, args.links, args.messages, args.slaves))
    if args.json:
        result = {"machine": machine(), "rounds": rounds, "median": medians(rounds)}
        print(json.dumps(result, indent=2))
        return
    show(
        f"closed links, median of {len(rounds)}",
        rounds,
        [
            Row("authenticated links", lambda x: x["links_per_s"], "/s"),
            Row("CPU a link, master", lambda x: x["link_cpu_us"]["master"], "us"),
            Row("CPU a link, client", lambda x: x["link_cpu_us"]["client"], "us"),
            Row("messages each way, Unix socket", lambda x: x["messages_per_s"]["unix"], "/s"),
            Row("messages each way, TLS", lambda x: x["messages_per_s"]["tls"], "/s"),
            Row("ratio", lambda x: x["messages_ratio"], "", 2),
            Row(f"{args.slaves} slaves come back", lambda x: x["slaves_back_s"], "s", 2),
            Row("CPU a slave that comes back, master", lambda x: x["slave_cpu_us"], "us"),
        ],
    )


async def measure_tls(state_dir: str, links: int, messages: int, slaves: int) -> dict[str, Any]:
    """Every figure of one master in a new folder."""
    port = free_port()
    env = {**os.environ, "DRQUEUE_LISTEN": f"127.0.0.1:{port}"}
    async with local_farm(state_dir, slaves=0, env=env) as (farm, client):
        user = (await joined(client, "client", 1))[0]
        result: dict[str, Any] = {}
        result |= await _links(farm, user, links)
        unix = await open_channel(Address("unix", path=os.path.join(farm.state_dir, "master.sock")))
        tls = await open_channel(user.address, pin=user.pin)
        rates = {
            "unix": await _messages(unix, "", messages),
            "tls": await _messages(tls, user.secret, messages),
        }
        result |= {"messages_per_s": rates, "messages_ratio": rates["tls"] / rates["unix"]}
        nodes = await joined(client, "slave", slaves)
        # Once for the records of new slaves, which are written then.
        await _slaves(farm, nodes)
        return result | await _slaves(farm, nodes)


async def joined(client: AsyncClient, role: LinkRole, count: int) -> list[Door]:
    """So many new accounts, by one line."""
    kind: AccountKind = "node" if role == "slave" else "user"
    added = await client.add_line(kind, name="" if role == "slave" else "bench", uses=count)
    line = lines.parse_line(added.line, kind)
    address = Address("tcp", host=line.host, port=line.port)
    doors: list[Door] = []

    async def join() -> None:
        secret = lines.encoded(secrets.token_bytes(lines.SECRET_BYTES))
        async with await open_channel(address, pin=line.pin, timeout_s=_PATIENCE_S) as channel:
            join = Join(role=role, secret_hash=lines.secret_hash(secret), token=line.token, name="n")
            channel.send(join)
            answer = await channel.first_message()
            if not isinstance(answer, Joined):
                raise RuntimeError(f"no account: {answer}")
        doors.append(Door(address, line.pin, secret))

    await _in_lanes(count, join)
    return doors


async def _in_lanes(count: int, do: Callable[[], Awaitable[None]]) -> None:
    left = count

    async def lane() -> None:
        nonlocal left
        while left:
            left -= 1
            await do()

    async with trio.open_nursery() as nursery:
        for _ in range(LANES):
            nursery.start_soon(lane)


async def _links(farm: LocalFarm, door: Door, count: int) -> dict[str, Any]:
    async def link() -> None:
        async with await open_channel(door.address, pin=door.pin, timeout_s=_PATIENCE_S) as channel:
            await channel.dial(Dialler("client", "bench", secret=door.secret))

    before, used, start = _master(farm), time.process_time(), time.perf_counter()
    await _in_lanes(count, link)
    took, used = time.perf_counter() - start, time.process_time() - used
    return {
        "links_per_s": count / took,
        "link_cpu_us": {
            "master": (_master(farm).cpu_s - before.cpu_s) / count * 1e6,
            "client": used / count * 1e6,
        },
    }


async def _messages(channel: Channel, secret: str, count: int) -> float:
    """Messages each way a second."""
    async with channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.pump)
        await channel.dial(Dialler("client", "bench", secret=secret))
        start = time.perf_counter()
        for number in range(count + BURST):
            if number >= BURST:
                await channel.receive()
            if number < count:
                channel.send(Beat(echo=True))
        took = time.perf_counter() - start
        channel.close()
    return count / took


async def _slaves(farm: LocalFarm, doors: list[Door]) -> dict[str, Any]:
    """All come at once, are registered, and go."""
    async with AsyncExitStack() as links:

        async def come(number: int, door: Door) -> None:
            while True:
                try:
                    channel = await links.enter_async_context(await open_channel(door.address, pin=door.pin))
                    await channel.dial(Dialler("slave", "bench", secret=door.secret))
                    channel.send(_hello(number))
                    while not isinstance(await channel.receive(), Registered):
                        pass
                except (OSError, LinkClosed, RemoteProtocolError):
                    # As slaves do: it had to wait too long for its turn.
                    await trio.sleep(_RETRY_S)
                else:
                    return

        before, start = _master(farm), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number, door in enumerate(doors):
                nursery.start_soon(come, number, door)
        took = time.perf_counter() - start
        used = _master(farm).cpu_s - before.cpu_s
    return {"slaves_back_s": took, "slave_cpu_us": used / len(doors) * 1e6}


def _hello(number: int) -> Hello:
    name = f"bench-{number}"
    return Hello(
        identity=f"{number:032x}",
        name=name,
        fingerprint=f"print-{number}",
        machine=MachineInfo(hostname=name, os="linux", boot_id="boot"),
        limits=SlaveLimits(),
        cores=1,
        memory_mb=1024,
    )


def _master(farm: LocalFarm) -> Sample:
    return sample(farm)["master"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
