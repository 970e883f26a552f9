"""Writes the documents, and the parts of documents, that the program itself knows best.

    python docs/generate.py            write what is out of date, and name it
    python docs/generate.py --check    only name it; status 1 if there is any

`states.md` and `cli.md` are written whole; of the tables of fields in `protocol.md` all but the meanings; in
other documents what stands between a line `<!-- generated: NAME -->` and the next `<!-- end -->`. Rules:
what the program says of itself is taken from it, what only people know stands here or in the document; a
state, reason or status that nobody described is an error, a field is shown as "(not described)".
"""

import difflib
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

from drqueue.client.kinds import KINDS
from drqueue.configuration import help_of
from drqueue.master.core import layer, records
from drqueue.master.core.reasons import CODES
from drqueue.proto import link_messages, messages, model, sharing_messages, views
from drqueue.proto.ids import BIG
from drqueue.settings import OCTAL_FIELDS, MasterSettings, SlaveSettings
from drqueue.slave.core.state import ALIVE, TRANSITIONS, USING, Phase

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import binding_calls  # noqa: E402  (beside this file)
import binding_names  # noqa: E402
import cli_page  # noqa: E402
from markdown_text import WRITTEN_BY, table  # noqa: E402

#: Bounds that every number has, which need no mention beside each.
_BIGGEST = {"int": BIG, "float": 1e15, "number": 1e12}
_UNSAID = "(not described)"
_SECTION = re.compile(r"^### (?P<name>\w+)\n(?P<text>.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\| `(?P<name>\w+)` \|.*\| (?P<meaning>[^|]*) \|$", re.MULTILINE)
_TABLE = re.compile(r"(^\|.*\n)+", re.MULTILINE)
_PART = re.compile(r"(<!-- generated: (?P<name>[\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)

FRAME_STATES = {
    "WAITING": "it waits for room, for its turn, for what its layer waits for, or for the end of a back-off",
    "ASSIGNED": "an attempt was ordered from a slave, whose word that it runs has not come yet",
    "RUNNING": "the slave said that the command runs",
    "DONE": "an attempt ended well, or somebody said `frame finish`",
    "FAILED": "the last permitted attempt failed, or was killed",
    "CANCELLED": "its job was deleted, or a job that it depends on was",
}
JOB_STATES = (
    ("FINISHED", "no frame is WAITING, ASSIGNED or RUNNING (some may be FAILED or CANCELLED)"),
    ("STOPPED", "it was stopped, or submitted so (`drqueue stop`), or stopped by itself (`max_failures`)"),
    ("ACTIVE", "at least one frame is ASSIGNED or RUNNING"),
    ("WAITING", "none of the above"),
)
PHASES = {
    Phase.QUEUED: "accepted, waits for free cores on this slave",
    Phase.PREPARING: "its declared outputs are looked at, as they lie there before the start",
    Phase.LAUNCHING: "the keeper was asked to start it",
    Phase.RUNNING: "the command runs",
    Phase.VERIFYING: "it ended with exit status 0, its declared outputs are looked at",
    Phase.ENDED: "it is over; held until the master has noted that",
}
SLAVE_STATES = (
    ("idle", "linked, enabled, holds no attempt"),
    ("busy", "linked, enabled, holds attempts"),
    ("loaded", "linked, enabled, holds no attempt, and gets none while others load its machine (`max_load`)"),
    ("disabled", "linked; gets no new frames, those that it has end normally"),
    ("sick", "linked; frames of several users failed on it in a row, so it gets none until it is healed"),
    ("unlinked", "no link; what it holds may go on, see leases in [operations](operations.md)"),
    ("lost", "no link, and its attempts were given up: a lease ended, or somebody declared it dead"),
)
OUTCOMES = {
    "": "it has not ended",
    "done": "it ended well, and the frame is DONE",
    "failed": "it failed; the frame is WAITING again, or FAILED",
    "killed": "somebody killed it, or stopped the job hard",
    "requeued": "somebody asked for the frame again while it ran",
    "lost": "nobody's failure: its slave or keeper was lost, or its slave was shut down",
    "superseded": "the frame no longer waited for it (finish, new range): its report changed nothing",
    "cancelled": "its job was deleted, or a job that it depends on was",
}
REASONS = {
    "no-command": "the program does not exist on this node, or cannot be run",
    "no-cwd": "the working directory does not exist on this node",
    "spawn-failed": "the system could not start it (processes, memory, descriptors, disk)",
    "timeout": "it ran longer than the layer's time limit",
    "missing-output": "it exited with 0, but a declared output is missing, empty, unchanged or no whole PNG",
    "oom": "memory ran out, or its limit was reached, and the kernel killed it",
    "log-limit": "its log reached the cap on a file system that cannot punch holes",
    "bad-order": "a placeholder, a variable or the working directory cannot be used",
    "keeper-died": "the keeper died, so how the command ended is unknown",
    "lease": "the slave had not heard the master for the length of the lease, and ended it",
    "stopped": "the master asked for its end; where that was a frame kill, it counts as one",
    "shutdown": "the slave was shut down together with its frames",
    "lost": "its slave is gone, came back without it, or was started anew",
    "killed": "somebody killed it at the slave itself",
    "": "the command ended by itself: exit status and signal say how",
}
# -- states ---------------------------------------------------------------------------------------------


def states() -> str:
    """The whole of states.md."""
    every = list(get_args(layer.FrameState))
    return f"""{WRITTEN_BY}

# States

Facts and wishes are separate. A state says what is known; what was asked for meanwhile (a kill, a requeue)
is a field of the attempt beside it, and the attempt's end fulfils it. So there is no state "killing".

## Frames

`drqueue.master.core.layer.TRANSITIONS` is the only table of what a frame can go through; anything else is a
bug and raises.

{_diagram(((a, b) for a, b in layer.TRANSITIONS), "WAITING")}

{table(("state", "meaning"), ((f"`{name}`", FRAME_STATES[name]) for name in every))}

{
        table(
            ("from", "to", "what makes it go there"),
            ((f"`{a}`", f"`{b}`", why) for (a, b), why in layer.TRANSITIONS.items()),
        )
    }

`BLOCKED` is shown instead of `WAITING` where the frame waits for others, its layer for another layer, or
its job for another job. It is derived, never stored.

## Jobs

A job's state is derived from its frames; the first line that applies is shown.

{table(("state", "when"), ((f"`{name}`", when) for name, when in JOB_STATES))}

## Attempts on a slave

From `drqueue.slave.core.state.TRANSITIONS`. The master knows three steps of these: an order sent (ASSIGNED),
a command that runs (RUNNING), an end.

{_diagram(((a.name, b.name) for a in Phase for b in Phase if b in TRANSITIONS[a]), "QUEUED")}

{
        table(
            ("phase", "meaning", "takes cores", "may have a process"),
            ((f"`{p.name}`", PHASES[p], _yes(p in USING), _yes(p in ALIVE)) for p in Phase),
        )
    }

## How an attempt ended

The slave reports an exit: the process's exit status or signal, and a reason where there is more to say.

{
        table(
            ("reason", "meaning", "counts as"),
            ((f"`{r}`" if r else "(none)", t, _counts(r)) for r, t in _reasons()),
        )
    }

"Counts as" says what it means for the frame's retries. A failure, or a kill, raises the frame's `requeued`
by one and makes it WAITING again; the one that finds `requeued` at the layer's `retries` makes it FAILED.
After a failure the frame waits for a while (back-off) and goes to another slave first. What is nobody's
failure makes it WAITING again and is not counted.

The master's history then says of the attempt:

{
        table(
            ("outcome", "meaning"),
            ((f"`{o}`" if o else "(none)", OUTCOMES[o]) for o in get_args(records.Outcome)),
        )
    }

Of each attempt four times are kept: since when its frame was *eligible* (it waited for nothing but room and
its turn: not for others, a start time or the end of a back-off), when it was *assigned* to a slave, when the
command *started* and when it *ended*. From eligible to assigned is what `drqueue pool list` shows as waiting;
who is assigned first and where says [scheduling](scheduling.md).

## Slaves

{table(("state", "meaning"), ((f"`{name}`", meaning) for name, meaning in SLAVE_STATES))}

{binding_calls.section(table)}
"""


def _diagram(pairs: Iterable[tuple[str, str]], first: str) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    return "\n".join([*lines, *(f"    {a} --> {b}" for a, b in pairs), "```"])


def _yes(value: bool) -> str:
    return "yes" if value else ""


def _reasons() -> Iterator[tuple[str, str]]:
    if set(REASONS) != set(model.REASONS):
        raise KeyError(f"not described, or not known: {set(REASONS) ^ set(model.REASONS)}")
    yield from REASONS.items()


def _counts(reason: str) -> str:
    if reason in model.FAILURES:
        return "failure"
    if reason == model.KILLED:
        return "kill"
    return "nobody's failure" if reason in model.NOBODYS else "success for exit status 0, else failure"


# -- settings and types -----------------------------------------------------------------------------------


def settings(program: type[MasterSettings] | type[SlaveSettings]) -> str:
    """Every setting of a daemon as a table."""
    rows = []
    for field in msgspec.structs.fields(program):
        default = "" if callable(field.default_factory) else field.default
        if default == "" or default is None:
            shown = ""
        elif field.name in OCTAL_FIELDS:
            shown = f"`0o{default:03o}`"
        elif isinstance(default, bool):
            shown = f"`{'true' if default else 'false'}`"
        elif isinstance(default, float):
            shown = f"`{default:g}`"
        else:
            shown = f"`{','.join(default) if isinstance(default, tuple) else default}`"
        rows.append((f"`{field.name}`", shown, help_of(field)))
    return table(("setting", "default", "meaning"), rows)


def type_text(kind: Any) -> str:
    """A field's type in words, as protocol.md has it; `kind` is a type or msgspec's description of one."""
    if not isinstance(kind, inspect.Type):
        kind = inspect.type_info(kind)
    match kind:
        case inspect.Metadata(type=inner):
            return type_text(inner)
        case inspect.IntType() | inspect.FloatType():
            word = "int" if isinstance(kind, inspect.IntType) else "float"
            least = None if kind.ge is None or kind.ge <= -_BIGGEST[word] else kind.ge
            most = None if kind.le is None or kind.le >= _BIGGEST[word] else kind.le
            if least is None:
                return word
            return f"{word}, {least:g} or more" if most is None else f"{word}, {least:g} to {most}"
        case inspect.StrType(min_length=least, max_length=most):
            return "text" if most is None else f"text, {least} to {most} long"
        case inspect.BoolType():
            return "bool"
        case inspect.BytesType():
            return "bytes"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.VarTupleType(item_type=item):
            return f"list of {type_text(item)}"
        case inspect.DictType(value_type=value):
            return f"map of text to {type_text(value)}"
        case inspect.StructType(cls=cls) | inspect.NamedTupleType(cls=cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case inspect.UnionType(types=types):
            return " or ".join(_union(types))
        case _:
            raise TypeError(f"no words for {kind!r}")


def _union(types: Iterable[inspect.Type]) -> list[str]:
    """What it may be; a whole number or a fraction is one number, whose bounds the fraction's say."""
    kinds = [each.type if isinstance(each, inspect.Metadata) else each for each in types]
    whole = [kind for kind in kinds if isinstance(kind, inspect.IntType)]
    fractions = [kind for kind in kinds if isinstance(kind, inspect.FloatType)]
    words = [_number(kind) for kind in fractions if whole]
    meant = (*whole, *fractions) if words else ()
    words += [type_text(k) for k in kinds if k not in meant and not isinstance(k, inspect.NoneType)]
    return [*words, *("null" for kind in kinds if isinstance(kind, inspect.NoneType))]


def _number(kind: inspect.FloatType) -> str:
    least = "" if kind.ge is None else f"{kind.ge:g}"
    if kind.gt is not None:
        least = f"above {kind.gt:g}"
    if kind.le is None or kind.le >= _BIGGEST["number"]:
        return f"number, {least} or more"
    return f"number, {least} to {kind.le:,.0f}"


def default_text(field: inspect.Field) -> str:
    """A field's default, as protocol.md has it."""
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "unchanged"  # msgspec's UNSET: what is left out stays as it is
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, msgspec.Struct):
        return "its own"
    if isinstance(value, tuple) and value:
        return f"`{','.join(map(str, value))}`"
    return "empty" if value in ("", b"", (), {}) else f"{value:g}" if isinstance(value, float) else str(value)


def protocol(text: str) -> str:
    """protocol.md with the fields, types and defaults as they are; meanings are kept as they stand there."""
    kinds = structs()

    def section(match: re.Match[str]) -> str:
        kind = kinds.get(match["name"])
        if kind is None:
            return match[0]
        meanings = {row["name"]: row["meaning"] for row in _ROW.finditer(match["text"])}
        rows = [
            (
                f"`{field.encode_name}`",
                type_text(field.type),
                default_text(field),
                meanings.get(field.name, _UNSAID),
            )
            for field in kind.fields
            if field.name != "rq"
        ]
        made = table(("field", "type", "default", "meaning"), rows) if rows else "No fields."
        body = _TABLE.sub("", match["text"]).replace("No fields.\n", "").strip("\n")
        return f"### {match['name']}\n\n{body}\n\n{made}\n\n"

    return _SECTION.sub(section, text).rstrip("\n") + "\n"


def structs() -> dict[str, inspect.StructType]:
    """Every message and every value that messages are made of, by name."""
    found: dict[str, inspect.StructType] = {}
    for module in (link_messages, messages, sharing_messages, model, views):
        for name, kind in vars(module).items():
            if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
                continue
            if kind.__module__ == module.__name__ and kind not in (
                link_messages.Message,
                messages.Request,
                model.Value,
            ):
                described = inspect.type_info(kind)
                assert isinstance(described, inspect.StructType)
                found[name] = described
    return found


def contracts() -> str:
    """What the import contracts of pyproject.toml say."""
    tool = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    rows = []
    for contract in tool["importlinter"]["contracts"]:
        match contract["type"]:
            case "layers":
                inside = "".join(f"in `{each}`: " for each in contract.get("containers", ()))
                says = inside + " > ".join(f"`{each}`" for each in contract["layers"])
            case "forbidden":
                modules = ", ".join(f"`{each}`" for each in contract["source_modules"])
                says = f"{modules} import none of {', '.join(contract['forbidden_modules'])}"
            case _:
                says = f"within {', '.join(f'`{each}`' for each in contract.get('ancestors', ()))}"
        rows.append((contract["name"], says))
    return table(("contract", "upper > lower; what `|` divides may not import each other"), rows)


# -- writing ----------------------------------------------------------------------------------------------


def kinds() -> str:
    """Every kind of job and its parameters."""
    sections = []
    for kind in KINDS.values():
        rows = [
            (
                f"`{param.name}`",
                param.wanted() + (f" ({param.unit})" if param.unit else ""),
                "required" if param.required else f"`{param.default}`" if param.default else "",
                param.help,
            )
            for param in kind.params
        ]
        shown = table(("parameter", "value", "default", "meaning"), rows)
        sections.append(f"### {kind.name}\n\n{kind.title}. {kind.help}\n\n{shown}")
    return "\n\n".join(sections)


_PARTS: dict[str, Callable[[], str]] = {
    "master settings": lambda: settings(MasterSettings),
    "slave settings": lambda: settings(SlaveSettings),
    "contracts": contracts,
    "reasons": lambda: table(
        ("code", "what it means", "what to do"),
        ((f"`{code}`", meaning, advice) for code, (meaning, advice) in CODES.items()),
    ),
    "kinds": kinds,
    "absent names": lambda: binding_names.absent(table),
}


def documents() -> dict[Path, str]:
    """Every document that is written here, whole or in part, and what it must say."""
    made = {DOCS / "states.md": states(), DOCS / "cli.md": cli_page.cli()}
    made[DOCS / "protocol.md"] = protocol((DOCS / "protocol.md").read_text(encoding="utf-8"))
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path not in made and _PART.search(text):
            made[path] = _PART.sub(lambda part: f"{part[1]}{_PARTS[part['name']]()}\n{part[3]}", text)
    return made


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit status."""
    check = arguments == ["--check"]
    status = 0
    for path, wanted in documents().items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == wanted:
            continue
        print(f"{path.relative_to(DOCS.parent)} {'is out of date' if check else 'written'}")
        if check:
            status = 1
            sys.stdout.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), n=0))
        else:
            path.write_text(wanted, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
