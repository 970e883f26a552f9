"""What a slave's settings say that it offers beside cores and memory, and how that is typed.

    gpus = [0, 2]                                    DRQUEUE_GPUS=0,2
    amounts = { houdini_ram = 2, seats = 1.5 }       DRQUEUE_AMOUNTS=houdini_ram=2,seats=1.5
    attributes = { rack = "12", site = "berlin" }    DRQUEUE_ATTRIBUTES=rack=12,site=berlin

Rules: pure. `read` takes what stands in a file as well as the text of a variable or a flag. What is wrong is
a ValueError whose text goes on after the setting's name.
"""

import re
from collections.abc import Callable, Mapping, Sized
from typing import Annotated, Final, Literal

from msgspec import Meta

#: What expressions and needs can name: amounts and attributes.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?|\.[0-9]{1,15}")
_LIST: Final = re.compile(r"[0-9]{1,4}([\s,]+[0-9]{1,4})*")
#: Amounts that have settings of their own.
_TAKEN: Final = frozenset({"cores", "memory", "memory_mb", "gpu", "gpus", "disk", "disk_mb"})
#: So many fit into one greeting, with the longest values.
_MOST: Final = 100
_AMOUNT_MAX: Final = 1e9
_GPU_MAX: Final = 1023
_VALUE_MAX: Final = 255
#: A number whose digits do not fit into a value.
_TOO_LONG: Final = 1e255
_OF_NAMES: Final = "is 1 to 63 letters a-z and A-Z, digits, dots, dashes and underscores"

Gpus = Annotated[
    Literal["all", "none"] | tuple[int, ...],
    Meta(description="GPUs it offers: all, none, or the indexes of some as nvidia-smi shows them."),
]
Amounts = Annotated[
    dict[str, int | float],
    Meta(description="Further amounts that its frames share, NAME=NUMBER: seats of a dongle, say."),
]
Tags = Annotated[tuple[str, ...], Meta(description="Tags it has, for layers that need some.")]
Attributes = Annotated[
    dict[str, str], Meta(description="Attributes it has, NAME=TEXT, for expressions of layers.")
]


def read(key: str, value: object) -> object:
    """The value of a setting, checked; raises ValueError."""
    return _READERS[key](value)


def shown(value: Mapping[str, object]) -> str:
    """A table as it is typed in a variable or a flag."""
    return ",".join(f"{name}={number}" for name, number in value.items())


def quoted(value: object) -> str:
    """A wrong value as a sentence names it."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # more digits than Python writes
        return "such a large number"


def _gpus(value: object) -> str | tuple[int, ...]:
    wanted = 'must be "all", "none" or a list of device indexes, like 0,2'
    if isinstance(value, str):
        text = value.strip().lower()
        if text in ("all", "none"):
            return text
        if not _LIST.fullmatch(text):
            raise ValueError(f"{wanted}, not {quoted(value)}")
        value = [int(part) for part in re.split(r"[\s,]+", text)]
    indexes = value if isinstance(value, (list, tuple)) else None
    if indexes is None or not all(type(index) is int and 0 <= index <= _GPU_MAX for index in indexes):
        raise ValueError(f"{wanted}, not {quoted(value)}")
    # No devices at all reads as the word that can be typed in again.
    return tuple(sorted(set(indexes))) or "none"


def _amounts(value: object) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for name, given in _table(value, "numbers, like seats=4"):
        if name in _TAKEN:
            raise ValueError(f"cannot hold {name!r}: that is offered by a setting of its own")
        number: object = given
        if isinstance(given, str) and _NUMBER.fullmatch(given):
            number = float(given) if "." in given else int(given)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"must have a number for {name}, not {quoted(given)}")
        if not 0 <= number <= _AMOUNT_MAX:
            raise ValueError(
                f"must have a number from 0 to {_AMOUNT_MAX:.0f} for {name}, not {quoted(given)}"
            )
        found[name] = number
    return found


def _attributes(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, given in _table(value, "texts, like rack=12"):
        text = given
        if isinstance(given, int | float) and not isinstance(given, bool):
            text = str(given) if abs(given) < _TOO_LONG else ""
        # Also keeps out what is no Unicode, which could not be sent.
        if not (isinstance(text, str) and text.strip() and text.isprintable() and len(text) <= _VALUE_MAX):
            raise ValueError(
                f"must have 1 to {_VALUE_MAX} printable characters for {name}, not {quoted(given)}"
            )
        if name.casefold() in map(str.casefold, found):
            raise ValueError(f"names {name!r} twice: case does not matter")
        found[name] = text
    return found


def _tags(value: object) -> tuple[str, ...]:
    parts = re.split(r"[\s,]+", value) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"must be a list of names, not {quoted(value)}")
    if isinstance(value, str):
        parts = [part for part in parts if part]
    for part in parts:
        if not _TAG.fullmatch(part):
            raise ValueError(f"cannot hold {part!r:.80}: a tag {_OF_NAMES}, a letter, digit or _ first")
    _few(parts, "tags")
    return tuple(dict.fromkeys(parts))


def _table(value: object, what: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    if isinstance(value, str):
        for part in filter(None, map(str.strip, value.split(","))):
            name, equals, text = part.partition("=")
            if not equals:
                raise ValueError(f"must be names with {what}, not {part!r:.80}")
            pairs.append((name.strip(), text.strip()))
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError(f"must be names with {what}, not {quoted(value)}")
    names = set()
    for name, _ in pairs:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"cannot hold {name!r:.80}: a name {_OF_NAMES}, a letter or _ first")
        if name in names:
            raise ValueError(f"names {name!r} twice")
        names.add(name)
    _few(pairs, "names")
    return pairs


def _few(items: Sized, what: str) -> None:
    if len(items) > _MOST:
        raise ValueError(f"has {len(items)} {what}, {_MOST} are allowed")


_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "gpus": _gpus,
    "amounts": _amounts,
    "tags": _tags,
    "attributes": _attributes,
}
#: Settings that `read` reads.
FIELDS: Final = frozenset(_READERS)
