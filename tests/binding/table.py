"""Reads `names.toml`, the table of all names of the original's binding, and says what it holds."""

import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("names.toml")
_TABLE: dict[str, Any] = tomllib.loads(PATH.read_text(encoding="utf-8"))
_NUMBERS = ("u8", "u16", "u32", "u64", "i32", "i64", "count")
_TEXTS = ("name", "path", "command", "value")


@dataclass(frozen=True)
class Argument:
    """One argument of a function: its name, its kind, whether it may be left out."""

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Call:
    """A function, or a method as "class.method", and what the original is recorded to do."""

    name: str
    arguments: tuple[Argument, ...]
    result: str


@dataclass(frozen=True)
class FieldOf:
    """A field of a class: its type's name and what a new object has."""

    owner: str
    name: str
    type: str
    default: Any

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"


@dataclass(frozen=True)
class Absence:
    """Names that are not here, and why."""

    what: str
    reason: str
    names: tuple[str, ...]
    patterns: tuple[str, ...]


def _grouped(groups: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: value for group in groups.values() for name, value in group.items()}


def _call(name: str, row: list[str]) -> Call:
    takes, result = row
    arguments = []
    for part in filter(None, takes.split(", ")):
        argument, _, kind = part.partition(": ")
        arguments.append(Argument(argument, kind.removesuffix("?"), kind.endswith("?")))
    return Call(name, tuple(arguments), result)


def _field(owner: str, name: str, spelled: str) -> FieldOf:
    kind, _, default = spelled.partition(" = ")
    value: Any = None
    if kind in _NUMBERS:
        value = int(default or 0)
    elif kind in _TEXTS:
        value = _user() if default == "$USER" else default
    return FieldOf(owner, name, kind, value)


def _user() -> str:
    """Whom `names.toml` calls $USER."""
    named = os.environ.get("USER") or os.environ.get("LOGNAME")
    return named or subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _fields() -> list[FieldOf]:
    found = [
        _field(owner, name, spelled)
        for owner, parts in _TABLE["classes"].items()
        for name, spelled in parts["fields"].items()
    ]
    for member, rows in _TABLE["koji"].items():
        found.append(FieldOf("koji", member, f"koji_{member}", None))
        for row in rows:
            name, _, kind = row.partition(": ")
            found.append(_field(f"koji_{member}", name, kind or "path"))
    return found


CONSTANTS: dict[str, int | str] = _grouped(_TABLE["constants"])
EXTRA_CONSTANTS: dict[str, int] = _grouped(_TABLE["extras"]["constants"])
EXTRA_FIELDS: dict[str, list[str]] = _TABLE["extras"]["fields"]
#: Not functions, not constants of the original: the exception, and the default view commands.
OTHER_NAMES: frozenset[str] = frozenset(_TABLE["extras"]["names"])
FUNCTIONS: dict[str, Call] = {
    name: _call(name, row)
    for rows in (_TABLE["functions"], _TABLE["extras"]["functions"])
    for name, row in rows.items()
}
METHODS: dict[str, Call] = {
    f"{owner}.{name}": _call(f"{owner}.{name}", row)
    for owner, parts in _TABLE["classes"].items()
    for name, row in parts.get("methods", {}).items()
}
FIELDS: list[FieldOf] = _fields()
#: Classes that hold what was a pointer to a list, and the class of its items.
POINTERS: dict[str, str] = {
    name: spelled.removeprefix("list of ") for name, spelled in _TABLE["pointers"].items()
}
CLASSES: list[str] = list(dict.fromkeys(field.owner for field in FIELDS))
ABSENT: list[Absence] = [
    Absence(row["what"], row["reason"], tuple(row["names"]), tuple(row.get("patterns", ())))
    for row in _TABLE["absent"]
]
#: Every name that `drqueue` offers.
OFFERED: frozenset[str] = frozenset({*CONSTANTS, *EXTRA_CONSTANTS, *OTHER_NAMES, *FUNCTIONS, *CLASSES})
