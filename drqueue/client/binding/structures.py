"""The binding's classes about jobs: `job` and all that it holds; those about computers are here too, by name.

Rules of this file: attributes, methods and what these return or raise are the original's: a method of `job`
returns 1 or raises OSError. Records from a farm are filled through `fields.put` and the `fill` methods, which
check nothing. Lists are Python's own lists; the `ptr` members, which were C pointers, are lists as well. What
stood for shared memory (`*shmid`, `*semid`) is there and always -1. What goes over the network goes through
`requests` and `slave_requests`, which know nothing of this file.
"""
# ruff: noqa: N801, N815  (the original's names)

import os
from collections.abc import Iterable
from typing import Final

from drqueue.client.binding import constants as c
from drqueue.client.binding import requests
from drqueue.client.binding.calls import must
from drqueue.client.binding.computer_structures import (
    autoenable,
    computer,
    computer_hwinfo,
    computer_limits,
    computer_status,
    pool,
    task,
)
from drqueue.client.binding.fields import (
    COMMAND_MOST,
    NAME_MOST,
    Anything,
    Count,
    ExitCodes,
    Many,
    Nested,
    Struct,
    Text,
    Whole,
    place,
    put,
    signed,
    u16,
    unsigned,
)
from drqueue.client.binding.koji import koji
from drqueue.client.binding.numbering import job_frame_index_to_number, job_nframes
from drqueue.client.binding.session import RequestError
from drqueue.client.specs import login_name
from drqueue.proto.ranges import MAX_FRAMES

__all__ = [
    "autoenable",
    "blocked_host",
    "computer",
    "computer_hwinfo",
    "computer_limits",
    "computer_status",
    "envvar",
    "envvars",
    "frame_info",
    "job",
    "job_limits",
    "koji",
    "pool",
    "request",
    "task",
    "tpol",
]

#: A variable's value: as much as the environment of a job may hold.
VALUE_MOST: Final = 65_536


class frame_info(Struct):
    """How a unit of a job stands; its place in the list is its index. Times: seconds since 1970, or 0."""

    status = unsigned(8)
    start_time = unsigned(32)
    end_time = unsigned(32)
    exitcode = unsigned(8)
    icomp = unsigned(32)
    itask = unsigned(16)
    requeued = unsigned(16)
    flags = unsigned(16)


class frames_pointer(Struct):
    """Never filled: `job.request_frame_list` returns a list of its own."""

    ptr = Many(frame_info)


class blocked_host(Struct):
    """A computer that a job is not to run on."""

    name = Text()


class blocked_hosts_pointer(Struct):
    """Holds a job's blocked computers: the local list, or what the master last said; it is not submitted."""

    ptr = Many(blocked_host)


class job_limits(Struct):
    """What a job asks of its computers (memory in MB) and how many tasks it may have; 65535: no limit."""

    nmaxcpus = unsigned(16, 65535)
    nmaxcpuscomputer = unsigned(16, 65535)
    os_flags = unsigned(16, c.OSF_ALL)
    memory = unsigned(32)
    pool = Text(default=c.DEFAULT_POOL)


class envvar(Struct):
    """One variable of the environment."""

    name = Text()
    value = Text(VALUE_MOST, in_bytes=True)


class variables_pointer(Struct):
    """Holds the variables of `envvars`."""

    ptr = Many(envvar)


def _variables(variables: "envvars") -> list[envvar]:
    return variables.variables.ptr


class envvars(Struct):
    """The variables that a job adds to the environment of its commands."""

    nvariables = Count(_variables)
    evshmid = signed(64, -1)
    evsemid = signed(64, -1)
    variables = Nested(variables_pointer)

    def find(self, name: str) -> envvar | None:
        """The variable of that name, or None."""
        return next((each for each in self.variables.ptr if each.name == name), None)

    def add(self, name: str, value: str) -> None:
        """Add a variable, or give it another value."""
        fresh = envvar()
        fresh.name, fresh.value = name, value
        old = self.find(fresh.name)
        if old is None:
            self.variables.ptr.append(fresh)
        else:
            old.value = fresh.value

    def delete(self, name: str) -> None:
        """Remove a variable; nothing where there is none of that name."""
        self.variables.ptr[:] = [each for each in self.variables.ptr if each.name != name]

    def fill(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Make these the variables."""
        fresh = []
        for name, value in pairs:
            put(each := envvar(), "name", name)
            put(each, "value", value)
            fresh.append(each)
        self.variables.ptr[:] = fresh


class _RangeNumber(Whole):
    """A number of a job's range; setting one ends that the range which came from the farm counts."""

    def __set__(self, instance: Struct, value: int) -> None:
        super().__set__(instance, value)
        instance.__dict__.pop("chunks", None)


_EnvVars = envvars
_FrameInfo = frame_info
_BlockedHost = blocked_host
_U32 = 2**32 - 1


def _owner() -> str:
    """Who a job is made by: $USER, else LOGNAME, else the login name of this process's user, or its number.

    The original wrote "(null)" where USER is unset, as under cron; no mail could reach that.
    """
    return (os.environ.get("USER") or os.environ.get("LOGNAME") or login_name())[:NAME_MOST]


def _blocked(each: "job") -> list[blocked_host]:
    return each.blocked_host.ptr


class job(Struct):
    """A job: what is here, or what `update` last fetched.

    Beyond the original: `success_exit_codes`, the exit codes with which a command did its work, (0,) by
    default; "any" brings back that however a command exits its frame is finished. `chunks` is set where the
    job's range came from the farm and counts in place of the four numbers, until one of these is set.
    """

    used = unsigned(8)
    id = unsigned(32)
    nprocs = unsigned(16)
    status = unsigned(16)
    priority = unsigned(32, 500)
    name = Text()
    cmd = Text(COMMAND_MOST, in_bytes=True)
    owner = Text(default=_owner)
    email = Text()
    autoRequeue = unsigned(8, 1)
    koj = unsigned(16)
    koji = Nested(koji)
    frame_start = _RangeNumber(0, _U32, 1)
    frame_end = _RangeNumber(0, _U32, 1)
    frame_pad = unsigned(8, 4)
    frame_step = _RangeNumber(0, _U32, 1)
    fleft = unsigned(32)
    fdone = unsigned(32)
    ffailed = unsigned(32)
    old_fdone = unsigned(32)
    old_nprocs = unsigned(16)
    block_size = _RangeNumber(0, _U32, 1)
    submit_time = unsigned(32)
    avg_frame_time = unsigned(32)
    est_finish_time = unsigned(32)
    frame_info = Nested(frames_pointer)
    fishmid = signed(64, -1)
    blocked_host = Nested(blocked_hosts_pointer)
    bhshmid = signed(64, -1)
    nblocked = Count(_blocked)
    flags = unsigned(32)
    dependid = unsigned(32)
    limits = Nested(job_limits)
    envvars = Nested(_EnvVars)
    success_exit_codes = ExitCodes()
    chunks = Anything()

    def send_to_queue(self) -> int:
        """Submit the job and set `id`; 1, or OSError. A job without a name or a command is not sent."""
        if not self.name or not self.cmd:
            raise RequestError(c.error_text(c.DRE_NOTCOMPLETE))
        return must(requests.register_job(self))

    def update(self, who: int) -> int:
        """Fetch all fields anew by `id`; 1, or OSError where the master does not know the job."""
        return must(requests.request_job_xfer(self.id, self, who))

    def request_frame_list(self, who: int) -> list[_FrameInfo]:
        """How the job's units stand, by index; as many as the local range has. OSError on failure."""
        u16(who, "who")
        count = job_nframes(self)
        if count > MAX_FRAMES:
            raise RequestError(c.error_text(c.DRE_NOMEMORY), f"{count} frames, {MAX_FRAMES} are allowed")
        frames = [_FrameInfo() for _ in range(count)]
        if frames:
            must(requests.request_job_xferfi(self.id, frames, count, who))
        return frames

    def job_frame_index_to_number(self, index: int) -> int:
        """The frame number of the unit at `index`; IndexError where there is no such unit."""
        return job_frame_index_to_number(self, place(index, job_nframes(self), "frame index out of range"))

    def request_stop(self, who: int) -> int:
        """Start no more frames; those that run end normally. 1, or OSError; this record is not refreshed."""
        return must(requests.request_job_stop(self.id, who))

    def request_hard_stop(self, who: int) -> int:
        """The same, and those that run are killed. 1, or OSError."""
        return must(requests.request_job_hstop(self.id, who))

    def request_continue(self, who: int) -> int:
        """Go on with a stopped job. 1, or OSError."""
        return must(requests.request_job_continue(self.id, who))

    def request_rerun(self, who: int) -> int:
        """Run all frames again. 1, or OSError."""
        return must(requests.request_job_rerun(self.id, who))

    def request_delete(self, who: int) -> int:
        """Kill what runs and forget the job. 1, or OSError."""
        return must(requests.request_job_delete(self.id, who))

    def fill_blocked(self, names: Iterable[str]) -> None:
        """Make these the local list of blocked computers."""
        hosts = []
        for name in names:
            put(host := _BlockedHost(), "name", name)
            hosts.append(host)
        self.blocked_host.ptr[:] = hosts

    def environment_variable_add(self, name: str, value: str) -> int:
        """Add a variable to the local job, or give it another value; before it is sent. 1."""
        self.envvars.add(name, value)
        return 1

    def environment_variable_delete(self, name: str) -> int:
        """Remove a variable from the local job; 1, also where there is none."""
        self.envvars.delete(name)
        return 1

    def environment_variable_find(self, name: str) -> str:
        """The value of a variable of the local job; IndexError where there is none."""
        found = self.envvars.find(name)
        if found is None:
            raise IndexError("No such variable")
        return found.value


class request(Struct):
    """The head of a request of the original's protocol; nothing here sends one."""

    type = unsigned(8)
    who = unsigned(8)
    data = unsigned(32)


class tpol(Struct):
    """A job's place in the order of jobs: what `priority_job_compare` compares."""

    index = unsigned(32)
    pri = unsigned(32)
    submit_time = unsigned(64)
