"""Requests that return lists: unlike the other `request_*` functions, these raise OSError where they fail."""

from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import fetch, session
from drqueue.client.binding.computer_records import KnownComputer, fill_computer
from drqueue.client.binding.computer_structures import computer
from drqueue.client.binding.fields import put, u16, u32
from drqueue.client.binding.numbering import job_frame_index_to_number
from drqueue.client.binding.records import fill_job
from drqueue.client.binding.structures import blocked_host, frame_info, job

__all__ = [
    "get_computer_list",
    "get_job_frame_list",
    "get_job_list",
    "request_computer_list",
    "request_job_list",
    "request_job_list_blocked_host",
]


def request_job_list(who: int) -> list[job]:
    """Every job, by id. Raises OSError."""
    u16(who, "who")
    jobs = []
    for known in session.ask(fetch.known_jobs):
        fill_job(each := job(), known)
        jobs.append(each)
    return jobs


def request_computer_list(who: int) -> list[computer]:
    """Every computer that the master knows, by id, with what runs on it. Raises OSError."""
    u16(who, "who")

    async def work(client: AsyncClient) -> list[KnownComputer]:
        return await fetch.known_computers(client, await client.slaves())

    computers = []
    for known in session.ask(work):
        fill_computer(each := computer(), known)
        computers.append(each)
    return computers


def request_job_list_blocked_host(ijob: int, who: int) -> list[blocked_host]:
    """The hosts that a job does not run on, in the order that `request_job_delete_blocked_host` counts.

    Raises OSError. The original's own form, with C pointers to fill, had no use here.
    """
    u16(who, "who")
    number = u32(ijob, "ijob")
    hosts = []
    for name in session.ask(lambda client: client.job(number))[0].blocked_hosts:
        put(each := blocked_host(), "name", name)
        hosts.append(each)
    return hosts


# -- what they were called in 2005 ---------------------------------------------------------------------------


def get_job_list(who: int) -> list[job]:
    """The same as `request_job_list`."""
    return request_job_list(who)


def get_computer_list(who: int) -> list[computer]:
    """The same as `request_computer_list`."""
    return request_computer_list(who)


def get_job_frame_list(job: job, who: int) -> dict[int, frame_info]:
    """How the job's units stand, by frame number. Raises OSError."""
    frames = job.request_frame_list(who)
    return {job_frame_index_to_number(job, index): frame for index, frame in enumerate(frames)}
