"""What programs ask of a slave itself, at its control port, whether a master is there or not.

Rules of this file: as in `requests`. A slave goes by its name, its host's name or its address, as in
`computer.hwinfo`; the `unix:PATH` of its control port is an address, too. Where that port cannot be reached
from here, the master passes the request on. A slave answers once it has done what it was asked.
"""

from drqueue.client.asking import Did
from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import constants as c
from drqueue.client.binding.fetch import NOT_REGISTERED
from drqueue.client.binding.fields import u8, u16, u32
from drqueue.client.binding.records import NO_LIMIT, NOT_COMPLETE
from drqueue.client.binding.requests import name
from drqueue.client.binding.session import RequestError, done
from drqueue.proto import messages
from drqueue.proto.ids import AttemptKey
from drqueue.proto.model import LimitsChange
from drqueue.proto.views import SlaveView

__all__ = [
    "request_slave_job_available",
    "request_slave_killtask",
    "request_slave_limits_autoenable_set",
    "request_slave_limits_enabled_set",
    "request_slave_limits_maxfreeloadcpu_set",
    "request_slave_limits_nmaxcpus_set",
    "request_slave_limits_pool_add",
    "request_slave_limits_pool_remove",
]


def request_slave_killtask(slave: str, itask: int, who: int) -> int:
    """End the task in that slot as `request_job_frame_kill` does; 0 where the slot is not in use."""
    host, slot = _asked(slave, who), u16(itask, "itask")

    async def work(client: AsyncClient) -> None:
        view = await _view(client, host)
        for frame in view.running:
            if frame.slot == slot:
                key = AttemptKey(frame.job, frame.layer, frame.index, frame.attempt)
                await client.kill_attempts(host, keys=(key,))
                return
        raise RequestError(NOT_REGISTERED, f"{host} runs nothing in slot {slot}")

    return done(work)


def request_slave_limits_enabled_set(slave: str, enabled: int, who: int) -> int:
    """Let the slave take frames (1) or not (0); those that run go on."""
    return _set(_asked(slave, who), LimitsChange(enabled=bool(u8(enabled, "enabled"))))


def request_slave_limits_nmaxcpus_set(slave: str, nmaxcpus: int, who: int) -> int:
    """Limit how many CPUs of the slave the farm uses; more than it has are all of them."""
    host, most = _asked(slave, who), u32(nmaxcpus, "nmaxcpus")

    async def work(client: AsyncClient) -> Did:
        view = await _view(client, host)
        return await client.set_slave(host, LimitsChange(max_cpus=min(most, view.cores)))

    return done(work)


def request_slave_limits_maxfreeloadcpu_set(slave: str, maxfreeloadcpu: int, who: int) -> int:
    """For each such load of others, in hundredths, leave one of the slave's CPUs alone; 65535 and more: none.

    What the farm's own frames load does not count; 0 leaves all of them alone.
    """
    host, most = _asked(slave, who), u32(maxfreeloadcpu, "maxfreeloadcpu")
    return _set(host, LimitsChange(max_load=None if most >= NO_LIMIT else most / 100))


def request_slave_limits_autoenable_set(slave: str, h: int, m: int, flags: int, who: int) -> int:
    """Have the slave enable itself at that time of day, or no more where `flags` lacks AEF_ACTIVE."""
    host, hour, minute = _asked(slave, who), u8(h, "h") % 24, u8(m, "m") % 60
    active = u8(flags, "flags") & c.AEF_ACTIVE
    return _set(host, LimitsChange(autoenable=f"{hour:02d}:{minute:02d}" if active else None))


def request_slave_limits_pool_add(slave: str, pool: str, who: int) -> int:
    """Have the slave join a pool; it may be in it already."""
    host, pool = _asked(slave, who), name(pool, "pool")
    return _set(host, LimitsChange(join=(pool,)))


def request_slave_limits_pool_remove(slave: str, pool: str, who: int) -> int:
    """Have the slave leave a pool; 0 where it is not in it."""
    host, pool = _asked(slave, who), name(pool, "pool")

    async def work(client: AsyncClient) -> Did:
        if pool not in (await _view(client, host)).limits.pools:
            raise RequestError(NOT_REGISTERED, f"{host} is not in the pool {pool!r}")
        return await client.set_slave(host, LimitsChange(leave=(pool,)))

    return done(work)


def pools_set(slave: str, pools: tuple[str, ...], who: int) -> int:
    """Have the slave be in these pools and in no other, in one request: for `computer.set_pools`."""
    return _set(_asked(slave, who), LimitsChange(pools=pools))


def request_slave_job_available(slave: str, who: int) -> int:
    """1 where the slave is there. It need not be woken: the master gives it frames without being asked."""
    host = _asked(slave, who)

    async def work(client: AsyncClient) -> None:
        await _view(client, host)

    return done(work)


def _asked(slave: object, who: object) -> str:
    u16(who, "who")
    if not isinstance(slave, str):
        raise TypeError(f"slave must be a str, not {type(slave).__name__}")
    return slave


def _set(host: str, change: LimitsChange) -> int:
    async def work(client: AsyncClient) -> Did:
        _check(host)
        return await client.set_slave(host, change)

    return done(work)


def _check(host: str) -> None:
    if not host:
        raise RequestError(NOT_COMPLETE, "no slave is named")


async def _view(client: AsyncClient, host: str) -> SlaveView:
    """The slave as it shows itself; as the master knows it where it cannot be asked from here."""
    _check(host)
    known = None if host.startswith("unix:") else await client.slave(host)
    link = await client.direct(host)
    if link is not None:
        return (await link.ask(messages.GetSlave(rq=0), messages.SlaveInfo)).slave
    if known is None or not known.linked:
        raise RequestError(c.error_text(c.DRE_COMMPROBLEM), f"no slave answers at {host}")
    return known
