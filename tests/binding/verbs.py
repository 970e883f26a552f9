"""The table `verbs.toml`, read, and the calls that are written in it, made."""

import ast
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import drqueue

PATH = Path(__file__).with_name("verbs.toml")
JOB_STATES = ("WAITING", "ACTIVE", "STOPPED", "FINISHED")
FRAME_STATES = ("WAITING", "ASSIGNED", "ERROR", "FINISHED")
#: Every state that a job and one of its frames can have together, with how often that was requeued: a frame
#: that runs has a state of its own where it may not be requeued any more.
STATES = (
    *[f"{job} {frame}" for job in ("WAITING",) for frame in ("WAITING 1", "ERROR 3", "FINISHED 1")],
    *[f"ACTIVE {frame}" for frame in ("WAITING 1", "ASSIGNED 1", "ASSIGNED 3", "ERROR 3", "FINISHED 1")],
    *[f"STOPPED {frame}" for frame in ("WAITING 1", "ASSIGNED 1", "ERROR 3", "FINISHED 1")],
    *[f"FINISHED {frame}" for frame in ("ERROR 3", "FINISHED 1")],
)
#: A blocked host that is named so is the first slave of the farm, whatever it is called.
FIRST_SLAVE = "s1"


@dataclass(frozen=True)
class State:
    """How a job and its frame 1 stand; "gone" for one that does not exist."""

    job: str
    frame: str = "gone"
    requeued: int = 0
    killed: bool = False
    flag: bool = False

    @classmethod
    def parse(cls, text: str) -> "State":
        """Read a cell of the table."""
        words = text.split()
        killed = "killed" in words
        flag = "FF_REQUEUE" in words
        rest = [word for word in words if word not in ("killed", "FF_REQUEUE")]
        match rest:
            case ["gone"]:
                return cls("gone", killed=killed)
            case [job, "gone"] if job in JOB_STATES:
                return cls(job, killed=killed)
            case [job, frame, requeued] if job in JOB_STATES and frame in FRAME_STATES:
                return cls(job, frame, int(requeued), killed, flag)
        raise ValueError(f"{text!r} is no state")


@dataclass(frozen=True)
class Row:
    """What a call does in one state."""

    before: State
    after: State
    then: State | None
    differs: str


@dataclass(frozen=True)
class Verb:
    """One of the binding's calls, and what it does in every state."""

    name: str
    call: str
    method: str
    first: str
    request: Mapping[str, Any]
    shows: Mapping[str, Any]
    differs: str
    rows: tuple[Row, ...] = field(repr=False)


def load() -> list[Verb]:
    """The whole table. Raises ValueError for what cannot be read."""
    verbs = tomllib.loads(PATH.read_text(encoding="utf-8"))["verb"]
    return [
        Verb(
            name=each["name"],
            call=each["call"],
            method=each.get("method", ""),
            first=each.get("first", ""),
            request=each["request"],
            shows=each.get("shows", {}),
            differs=each.get("differs", ""),
            rows=_rows(each["rows"]),
        )
        for each in verbs
    ]


def _rows(cells: Any) -> tuple[Row, ...]:
    if cells == "unchanged":
        return tuple(_unchanged(State.parse(text)) for text in STATES)
    return tuple(
        Row(State.parse(before), State.parse(after), State.parse(then) if then else None, differs)
        for before, after, then, differs in cells
    )


def _unchanged(before: State) -> Row:
    if before.frame != "ASSIGNED":
        return Row(before, before, None, "")
    job = "WAITING" if before.job == "ACTIVE" else before.job
    return Row(before, before, State(job, "FINISHED", before.requeued), "")


def make(call: str, job: drqueue.job, first_slave: str) -> object:
    """Make a call that is written in the table; what it returns."""
    tree = ast.parse(call, mode="eval").body
    assert isinstance(tree, ast.Call), call
    is_method = isinstance(tree.func, ast.Attribute)
    arguments = [_argument(each, job, first_slave) for each in tree.args]
    if is_method:
        assert isinstance(tree.func, ast.Attribute)
        return getattr(job, tree.func.attr)(*arguments)
    assert isinstance(tree.func, ast.Name), call
    return getattr(drqueue, tree.func.id)(*arguments)


def _argument(tree: ast.expr, job: drqueue.job, first_slave: str) -> object:
    match tree:
        case ast.Name(id="job"):
            return job.id
        case ast.Name(id=name):
            return getattr(drqueue, name)
        case ast.Constant(value=value):
            return first_slave if value == FIRST_SLAVE else value
        case _:
            raise ValueError(f"{ast.unparse(tree)!r} cannot be an argument")
