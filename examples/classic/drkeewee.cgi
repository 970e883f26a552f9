#!/usr/bin/env python3
"""The farm as web pages: a CGI script that shows jobs, frames and computers, and changes nothing.

    /, /jobs             every job
    /job/ID              one job and its frames (?page=N for the others of many)
    /job/ID/frame/N      one frame
    /computers           every computer
    /computer/ID         one computer and its tasks

`drkeewee.py` is a web server for it. Whatever the farm says is text: `markup` escapes all of it.
"""

import os
import re
import sys
import time
import urllib.parse
from html import escape
from typing import NamedTuple

import drqueue

FRAMES_A_PAGE = 500
NOT_LOADED = 65535

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 85rem; padding: 0 1rem 3rem; }
header { align-items: baseline; border-bottom: 1px solid #8886; display: flex; gap: 1.5rem; }
header { padding: .8rem 0; }
header strong { font-size: 1.2rem; }
h1 { font-size: 1.4rem; margin: 1.4rem 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .8rem .3rem 0; text-align: left; }
th, td { vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
td a { white-space: normal; }
th + td { overflow-wrap: anywhere; white-space: normal; }
a { color: light-dark(#0b57a4, #8ec5ff); }
p.pages a, p.pages b { margin-right: .6rem; }
"""


class Link(NamedTuple):
    """A text that leads to another of these pages."""

    text: object
    path: str


class Page(NamedTuple):
    """What is sent: the status line, a title, and the body as HTML."""

    status: str
    title: str
    body: str


class NotThere(Exception):  # noqa: N818  (reads as what it says)
    """The page asked for does not exist; the text says what does not."""


# -- HTML ------------------------------------------------------------------------------------------------


TABLE = '<div class="wide"><table>'


def markup(value: object) -> str:
    """A value as HTML: escaped, a link as a link."""
    if isinstance(value, Link):
        address = os.environ.get("SCRIPT_NAME", "") + value.path
        return f'<a href="{escape(address)}">{escape(str(value.text))}</a>'
    if isinstance(value, list):
        return ", ".join(markup(one) for one in value) or "None"
    return escape(str(value))


def table(head: list[str], rows: list[list[object]]) -> str:
    """Rows under a head."""
    names = "".join(f"<th>{markup(name)}</th>" for name in head)
    lines = "\n".join(f"<tr>{''.join(f'<td>{markup(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"{TABLE}\n<thead><tr>{names}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"


def details(fields: list[tuple[str, object]]) -> str:
    """Names and values, one below the other."""
    lines = "\n".join(f"<tr><th>{markup(name)}</th><td>{markup(value)}</td></tr>" for name, value in fields)
    return f"{TABLE}\n<tbody>\n{lines}\n</tbody></table></div>"


def whole(page: Page) -> str:
    """The document."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{markup(page.title)} - DrKeewee</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<strong>DrKeewee</strong>
{markup(Link("Jobs", "/jobs"))}
{markup(Link("Computers", "/computers"))}
</header>
<h1>{markup(page.title)}</h1>
{page.body}
</body>
</html>
"""


# -- pages -----------------------------------------------------------------------------------------------


def jobs_page() -> Page:
    """Every job."""
    head = (
        "Id,Name,Owner,Status,Frames left,Frames done,Frames failed,Frames running,"
        "Average frame time,Estimated end"
    )
    rows = [
        [
            Link(job.id, f"/job/{job.id}"),
            Link(job.name, f"/job/{job.id}"),
            job.owner,
            drqueue.job_status_string(job.status),
            job.fleft,
            job.fdone,
            job.ffailed,
            job.nprocs,
            average_time(job),
            estimated_end(job),
        ]
        for job in drqueue.request_job_list(drqueue.CLIENT)
    ]
    return Page("200 OK", "Jobs", table(head.split(","), rows) if rows else "<p>There are no jobs.</p>")


def job_page(job_id: int) -> Page:
    """One job and its frames."""
    job = the_job(job_id)
    frames = job.request_frame_list(drqueue.CLIENT)
    computers = {one.hwinfo.id: one for one in drqueue.request_computer_list(drqueue.CLIENT)}
    fields: list[tuple[str, object]] = [
        ("Id", job.id),
        ("Name", job.name),
        ("Owner", job.owner),
        ("Status", drqueue.job_status_string(job.status)),
        ("Priority", job.priority),
        ("Kind", drqueue.job_koj_string(job)),
        ("Command", job.cmd),
        ("Pool", job.limits.pool),
        (
            "Frames",
            f"{job.frame_start} to {job.frame_end}, step {job.frame_step}, block size {job.block_size}",
        ),
        ("Frames left", job.fleft),
        ("Frames done", job.fdone),
        ("Frames failed", job.ffailed),
        ("Frames running", job.nprocs),
        ("Submitted", moment(job.submit_time)),
        ("Average frame time", average_time(job)),
        ("Estimated end", estimated_end(job)),
    ]
    page, pages = page_number(), max(1, -(-len(frames) // FRAMES_A_PAGE))
    first = (page - 1) * FRAMES_A_PAGE
    rows = []
    for index, frame in enumerate(frames[first : first + FRAMES_A_PAGE], first):
        number = job.job_frame_index_to_number(index)
        cells = [value for _, value in frame_fields(job, number, frame, computers)]
        rows.append([Link(number, f"/job/{job.id}/frame/{number}"), *cells[1:]])
    head = "Number,Status,Exit code,Computer,Task,Requeued,Start time,Finish time"
    body = details(fields) + "\n<h2>Frames</h2>\n" + table(head.split(","), rows)
    if pages > 1:
        links = "".join(page_link(job.id, each, page) for each in range(1, pages + 1))
        body += f'\n<p class="pages">Page {links}</p>'
    return Page("200 OK", f"Job {job.id}: {job.name}", body)


def frame_page(job_id: int, number: int) -> Page:
    """One frame."""
    job, frame = the_job(job_id), drqueue.frame_info()
    if not drqueue.request_job_frame_info(job_id, number, frame, drqueue.CLIENT):
        raise NotThere(f"Job {job_id} has no frame {number}.")
    computers = {one.hwinfo.id: one for one in drqueue.request_computer_list(drqueue.CLIENT)}
    fields = [("Job", Link(job.name, f"/job/{job.id}")), *frame_fields(job, number, frame, computers)]
    return Page("200 OK", f"Frame {number} of job {job.id}", details(fields))


def computers_page() -> Page:
    """Every computer."""
    rows = [
        [
            Link(computer.hwinfo.id, f"/computer/{computer.hwinfo.id}"),
            Link(computer.hwinfo.name, f"/computer/{computer.hwinfo.id}"),
            yes(computer.limits.enabled),
            computer.status.nrunning,
            load(computer),
            pools(computer),
        ]
        for computer in drqueue.request_computer_list(drqueue.CLIENT)
    ]
    body = table(["Id", "Name", "Enabled", "Running", "Load", "Pools"], rows)
    return Page("200 OK", "Computers", body if rows else "<p>There are no computers.</p>")


def computer_page(computer_id: int) -> Page:
    """One computer and its tasks."""
    found = [one for one in drqueue.request_computer_list(drqueue.CLIENT) if one.hwinfo.id == computer_id]
    if not found:
        raise NotThere(f"There is no computer {computer_id}.")
    computer = found[0]
    fields: list[tuple[str, object]] = [
        ("Id", computer.hwinfo.id),
        ("Name", computer.hwinfo.name),
        ("Address", computer.hwinfo.address),
        ("System", drqueue.osstring(computer.hwinfo.os)),
        ("CPUs", computer.hwinfo.ncpus),
        ("Memory", f"{computer.hwinfo.memory} MB"),
        ("Enabled", yes(computer.limits.enabled)),
        ("Running", computer.status.nrunning),
        ("Load", load(computer)),
        ("Pools", pools(computer)),
        ("Last heard of", moment(computer.lastconn)),
    ]
    rows = [
        [
            Link(task.jobname, f"/job/{task.ijob}"),
            task.ijob,
            task.itask,
            drqueue.task_status_string(task.status),
            Link(task.frame, f"/job/{task.ijob}/frame/{task.frame}"),
        ]
        for task in tasks(computer)
    ]
    body = details(fields) + "\n<h2>Tasks</h2>\n"
    body += table(["Job", "Job id", "Task id", "Status", "Frame"], rows) if rows else "<p>Nothing runs.</p>"
    return Page("200 OK", f"Computer {computer.hwinfo.id}: {computer.hwinfo.name}", body)


# -- what pages are made of ------------------------------------------------------------------------------


def the_job(job_id: int) -> drqueue.job:
    """The job of that id."""
    for job in drqueue.request_job_list(drqueue.CLIENT):
        if job.id == job_id:
            return job
    raise NotThere(f"There is no job {job_id}.")


def frame_fields(
    job: drqueue.job, number: int, frame: drqueue.frame_info, computers: dict
) -> list[tuple[str, object]]:
    """What is known of a frame, by name."""
    started = frame.start_time != 0
    computer = computers.get(frame.icomp) if started else None
    name = Link(computer.hwinfo.name, f"/computer/{frame.icomp}") if computer is not None else "None"
    return [
        ("Number", number),
        ("Status", drqueue.job_frame_status_string(frame.status)),
        ("Exit code", frame.exitcode),
        ("Computer", name),
        ("Task", frame.itask if started and frame.itask != NOT_LOADED else "None"),
        ("Requeued", frame.requeued),
        ("Start time", moment(frame.start_time, "Not started")),
        ("Finish time", moment(frame.end_time, "Not finished" if started else "Not started")),
    ]


def tasks(computer: drqueue.computer) -> list:
    """The tasks of a computer that are in use."""
    found, place = [], 0
    while True:
        try:
            task = computer.status.get_task(place)
        except IndexError:
            return found
        if task.used:
            found.append(task)
        place += 1


def load(computer: drqueue.computer) -> str:
    """The load of the last 1, 5 and 15 minutes; the binding counts in hundredths."""
    return " ".join(f"{computer.status.get_loadavg(place) / 100:.2f}" for place in range(3))


def pools(computer: drqueue.computer) -> list:
    """The names of a computer's pools."""
    return [computer.limits.get_pool(place).name for place in range(computer.limits.npools)]


def average_time(job: drqueue.job) -> str:
    """How long its frames took; nobody knows before one is done."""
    return drqueue.time_str(job.avg_frame_time) if job.fdone else "-"


def estimated_end(job: drqueue.job) -> str:
    """When a job that runs may end."""
    if not job.fdone:
        return "-"
    return moment(job.est_finish_time) if job.status == drqueue.JOBSTATUS_ACTIVE else "Not running"


def moment(seconds: int, otherwise: str = "Never") -> str:
    """A time of day (seconds since 1970); 0 is none."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else otherwise


def yes(value: int) -> str:
    """A flag in a word."""
    return "Yes" if value else "No"


def page_number() -> int:
    """The page of frames that is asked for, from 1 on."""
    query = urllib.parse.parse_qs(os.environ.get("QUERY_STRING", ""))
    text = query.get("page", ["1"])[0]
    return max(1, int(text)) if re.fullmatch(r"[0-9]{1,7}", text) else 1


def page_link(job_id: int, number: int, shown: int) -> str:
    """A link to a page of frames; the page that is shown is none."""
    return f"<b>{number}</b>" if number == shown else markup(Link(number, f"/job/{job_id}?page={number}"))


def page_for(path: str) -> Page:
    """The page at a path."""
    if path in ("", "/", "/jobs"):
        return jobs_page()
    if path == "/computers":
        return computers_page()
    for pattern, page in (
        (r"/job/([0-9]{1,10})", job_page),
        (r"/job/([0-9]{1,10})/frame/(-?[0-9]{1,10})", frame_page),
        (r"/computer/([0-9]{1,10})", computer_page),
    ):
        match = re.fullmatch(pattern, path)
        if match:
            return page(*map(int, match.groups()))
    raise NotThere("There is no such page.")


def main() -> None:
    """Print the headers and the page."""
    try:
        page = page_for(os.environ.get("PATH_INFO", ""))
    except (NotThere, OverflowError) as error:
        page = Page("404 Not Found", "Not found", f"<p>{markup(error)}</p>")
    except OSError as error:
        page = Page("503 Service Unavailable", "No answer", f"<p>{markup(error)}</p>")
    head = (
        f"Status: {page.status}\n"
        "Content-Type: text/html; charset=utf-8\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\n"
        "Cache-Control: no-store\n\n"
    )
    # Names may hold what is no Unicode text at all; such characters become question marks.
    sys.stdout.buffer.write((head + whole(page)).encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
