"""The part of states.md about the binding's calls, made from the table that tests walk: `verbs.toml`.

Rule: a row that says that nothing changes is left out; that there is such a row for every state is tested.
"""

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "tests" / "binding" / "verbs.toml"
Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]

_INTRODUCTION = """## What the binding's calls do

Seen as the [binding](binding.md) shows it: `job.status`, and of one frame `frame_info.status`
(`ASSIGNED` is both ASSIGNED and RUNNING, `ERROR` both FAILED and CANCELLED), `frame_info.requeued` and
the flag `FF_REQUEUE`. The job has the frames 1 and 2 and may requeue a frame 3 times; the tables are
about frame 1, and no frame is handed out meanwhile. "Killed": the slave is told to end the run. Where
that is not said, the run ends with exit 0 for the column "once the run is over". What a table does not
show, the call leaves as it is: a run that ends with exit 0 makes its frame FINISHED, and an ACTIVE job
whose only run that was WAITING. "The original" says what differs there; its job statuses were all up to
10 s late. A request is what the master gets, see [protocol](protocol.md)."""


def section(table: Table) -> str:
    """The whole section; `table` writes one in Markdown."""
    verbs = tomllib.loads(TABLE.read_text(encoding="utf-8"))["verb"]
    same = [verb for verb in verbs if verb["rows"] == "unchanged"]
    parts = [_INTRODUCTION, *(_one(verb, table) for verb in verbs if verb not in same)]
    rows = [
        (
            verb["name"],
            f"`{verb['call']}`",
            f"`{_request(verb['request'])}`",
            verb.get("differs", ""),
        )
        for verb in same
    ]
    head = ("verb", "call", "request", "the original")
    parts.append(f"### What changes no state\n\nRunning frames go on.\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _one(verb: dict[str, Any], table: Table) -> str:
    calls = " or ".join(f"`{verb[key]}`" for key in ("call", "method") if key in verb)
    lines = [f"### {verb['name'].capitalize()}", "", f"{calls}: `{_request(verb['request'])}`."]
    if "differs" in verb:
        lines += ["", f"The original: {verb['differs']}"]
    rows = [row for row in verb["rows"] if not _nothing(*row)]
    head = ("before", "right after", "once the run is over", "the original")
    return "\n".join([*lines, "", table(head, (map(_shown, row) for row in rows))])


def _nothing(before: str, after: str, then: str, differs: str) -> bool:
    """Whether a row says no more than that nothing happens."""
    if before != after or differs:
        return False
    job, _, requeued = before.split()
    return not then or then == f"{'WAITING' if job == 'ACTIVE' else job} FINISHED {requeued}"


def _shown(cell: str) -> str:
    """A state as people read it: job / frame, requeued; other cells as they stand."""
    words = cell.split()
    if not words or words[0] not in ("WAITING", "ACTIVE", "STOPPED", "FINISHED", "gone"):
        return cell
    if cell in ("gone", "gone killed"):
        return cell.replace(" ", ", ")
    if len(words) > 1 and (words[1] == "gone" or (len(words) > 2 and words[2].isdigit())):
        count = 2 if words[1] == "gone" else 3
        state = f"{words[0]} / {' '.join(words[1:count])}"
        return ", ".join([state, *words[count:]])
    return cell


def _request(request: dict[str, Any]) -> str:
    fields = {key: value for key, value in request.items() if key != "t"}
    return " ".join([request["t"], *(_field(key, value) for key, value in fields.items())])


def _field(key: str, value: object) -> str:
    if isinstance(value, dict):
        return " ".join(_field(name, each) for name, each in value.items())
    if isinstance(value, list):
        return f"{key}={','.join(map(str, value)) or 'none'}"
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"
