"""The binding's classes about computers: `computer` and all that it holds.

Rules of this file: as in `structures`; a method of `computer` or `computer_limits` that reaches a slave
returns None or raises OSError. A computer has as many task slots as it uses, 32 at least.
"""
# ruff: noqa: N801  (the original's names)

import logging
from collections.abc import Iterable
from typing import Self, overload

from drqueue.client.binding import constants as c
from drqueue.client.binding import requests, slave_requests
from drqueue.client.binding.calls import must
from drqueue.client.binding.fields import (
    COMMAND_MOST,
    Count,
    Field,
    Many,
    Nested,
    Numbers,
    Struct,
    Text,
    copy_fields,
    place,
    put,
    signed,
    unsigned,
)

_OUT_OF_RANGE = "Index out of range"
_log = logging.getLogger("drqueue")


class pool(Struct):
    """A named group of computers."""

    name = Text()

    def __init__(self, name: str | None = "") -> None:
        self.name = name


class pools_pointer(Struct):
    """Holds the pools of a computer."""

    ptr = Many(pool)


class autoenable(Struct):
    """When a disabled computer enables itself: at `h`:`m` local time where `flags` has AEF_ACTIVE.

    `last`: when it last did (seconds since 1970).
    """

    last = unsigned(32)
    h = unsigned(8)
    m = unsigned(8)
    flags = unsigned(8)


class task(Struct):
    """What runs in a slot of a computer; the slot is free where `used` is 0. `frame` is a frame's number."""

    used = unsigned(8)
    jobname = Text(default="EMPTY")
    ijob = unsigned(32)
    icomp = unsigned(32)
    itask = unsigned(16)
    jobcmd = Text(COMMAND_MOST, "NONE", in_bytes=True)
    owner = Text(default="NOBODY")
    frame = unsigned(32)
    frame_start = unsigned(32)
    frame_end = unsigned(32)
    frame_pad = unsigned(8)
    frame_step = unsigned(32)
    block_size = unsigned(32)
    pid = signed(32)
    exitstatus = signed(32)
    status = unsigned(8)
    start_loading_time = unsigned(64)


_Task = task


class _Slots(Field):
    """Tasks by slot; those never looked at take no memory."""

    def held(self, instance: Struct) -> dict[int, task]:
        slots: dict[int, task] = instance.__dict__.setdefault(self.name, {})
        return slots

    def count(self, instance: Struct) -> int:
        used = [slot for slot, each in self.held(instance).items() if each.used]
        return max(c.MAXTASKS, max(used, default=-1) + 1)

    def at(self, instance: Struct, slot: int) -> task:
        held = self.held(instance)
        if slot not in held:
            held[slot] = task()
        return held[slot]

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Struct, owner: type) -> list[task]: ...
    def __get__(self, instance: Struct | None, owner: type) -> "Self | list[task]":
        if instance is None:
            return self
        return [self.at(instance, slot) for slot in range(self.count(instance))]

    def __set__(self, instance: Struct, value: Iterable[task]) -> None:
        fresh: dict[int, task] = {}
        for slot, each in enumerate(value):
            if not isinstance(each, task):
                raise TypeError(f"{self.name} holds task objects, not {type(each).__name__}")
            copy_fields(each, fresh.setdefault(slot, task()))
        instance.__dict__[self.name] = fresh

    def copy(self, source: Struct, target: Struct) -> None:
        fresh: dict[int, task] = {}
        for slot, each in self.held(source).items():
            copy_fields(each, fresh.setdefault(slot, task()))
        target.__dict__[self.name] = fresh


class computer_status(Struct):
    """How busy a computer is: load of 1, 5 and 15 minutes in hundredths, and its tasks by slot.

    `ntasks` and `nrunning` are the numbers of used slots, and of those that load or run.
    """

    loadavg = Numbers(3)
    ntasks = unsigned(16)
    nrunning = unsigned(16)
    task = _Slots()

    def get_loadavg(self, index: int) -> int:
        """The load of 1, 5 or 15 minutes (index 0, 1, 2), in hundredths; IndexError elsewhere."""
        return self.loadavg[place(index, 3, _OUT_OF_RANGE)]

    def get_task(self, index: int) -> _Task:
        """The task in a slot, used or not; IndexError beyond slot 31 and the highest one that is used."""
        slots = type(self).task
        return slots.at(self, place(index, slots.count(self), _OUT_OF_RANGE))

    def slot(self, index: int) -> _Task:
        """The task in any slot, for records from a farm: there may be more than 32."""
        return type(self).task.at(self, place(index, 2**32, _OUT_OF_RANGE))

    def clear_tasks(self) -> None:
        """Forget all tasks: what was handed out before stays as it was, and is no longer this computer's."""
        type(self).task.held(self).clear()


class computer_hwinfo(Struct):
    """What a computer is: its name, address and id at the master, and its hardware (MHz, MB, bits)."""

    name = Text()
    address = Text()
    id = unsigned(32)
    arch = unsigned(8)
    os = unsigned(8)
    proctype = unsigned(8)
    procspeed = unsigned(32)
    ncpus = unsigned(16)
    speedindex = unsigned(32)
    memory = unsigned(32)
    nnbits = unsigned(8)


_Pool = pool
_AutoEnable = autoenable


def _local_pools(limits: "computer_limits") -> list[pool]:
    return limits.pool.ptr


class computer_limits(Struct):
    """What a computer lets the farm use; `maxfreeloadcpu` is in hundredths of a load."""

    enabled = unsigned(8)
    nmaxcpus = unsigned(16)
    maxfreeloadcpu = unsigned(16)
    autoenable = Nested(_AutoEnable)
    npools = Count(_local_pools)
    poolshmid = signed(64, -1)
    poolsemid = signed(64, -1)
    npoolsattached = unsigned(16)
    pool = Nested(pools_pointer)
    local_pool = Nested(pools_pointer)

    def get_pool(self, index: int) -> _Pool:
        """A pool of the local record; IndexError where there are not so many."""
        return self.pool.ptr[place(index, self.npools, _OUT_OF_RANGE)]

    def pool_add(self, computer_name: str, pool_name: str, who: int) -> None:
        """Have the slave of that name join a pool; OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_pool_add(computer_name, pool_name, who))

    def pool_remove(self, computer_name: str, pool_name: str, who: int) -> None:
        """Have the slave of that name leave a pool; OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_pool_remove(computer_name, pool_name, who))

    def pool_list(self) -> None:
        """Write the names of the local record's pools to the log (`logging`, "drqueue")."""
        for each in self.pool.ptr:
            _log.info("pool: %s", each.name)

    def fill_pools(self, names: Iterable[str]) -> None:
        """Make these the local record's pools."""
        pools = []
        for name in names:
            put(each := _Pool(), "name", name)
            pools.append(each)
        self.pool.ptr[:] = pools


class computer(Struct):
    """A slave as the master knows it. `lastconn`: when it was last heard of (seconds since 1970)."""

    hwinfo = Nested(computer_hwinfo)
    status = Nested(computer_status)
    limits = Nested(computer_limits)
    lastconn = unsigned(32)
    used = unsigned(8)
    semid = signed(64, -1)

    def request_enable(self, who: int) -> None:
        """Have the slave take frames; OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_enabled_set(self.hwinfo.name, 1, who))

    def request_disable(self, who: int) -> None:
        """Have the slave take no more frames; those that run go on. OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_enabled_set(self.hwinfo.name, 0, who))

    def update(self, who: int) -> None:
        """Fetch all of this record anew, by `hwinfo.id`; OSError where the master does not know it."""
        must(requests.request_comp_xfer(self.hwinfo.id, self, who))

    def list_pools(self) -> list[pool]:
        """The pools of the local record."""
        return list(self.limits.pool.ptr)

    def add_pool(self, name: str, who: int) -> None:
        """Have the slave join a pool; OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_pool_add(self.hwinfo.name, name, who))

    def remove_pool(self, name: str, who: int) -> None:
        """Have the slave leave a pool; OSError where it cannot be told."""
        must(slave_requests.request_slave_limits_pool_remove(self.hwinfo.name, name, who))

    def set_pools(self, pools: list[pool]) -> list[pool]:
        """Have the slave be in these pools and no other, whatever the local record says; returns the list.

        ValueError for what is no list of pools; OSError where the slave cannot be told: the record stays.
        """
        if not isinstance(pools, list):
            raise ValueError("Expecting a list")
        if not all(isinstance(each, pool) for each in pools):
            raise ValueError("Expecting a list of pools")
        wanted = tuple(dict.fromkeys(each.name for each in pools))
        must(slave_requests.pools_set(self.hwinfo.name, wanted, c.CLIENT))
        self.limits.fill_pools(wanted)
        return self.list_pools()
