"""Parameters of kinds of job: what they are declared as, and how what people give becomes a value. PURE.

A declaration is data alone, for a form can be made of it as well as a command line. A value comes as text
(`--set k=v`, a form) or as what it is (a job file, a program); it is kept as text in `JobSpec.params`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Literal

Type = Literal["text", "path", "whole", "number", "choice", "switch"]
Value = str | int | float | bool
#: Values by name; a parameter that was not given and has no default is absent, a switch never is.
Values = Mapping[str, Value]

_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off", "")
_WHAT = {
    "text": "text",
    "path": "a path",
    "whole": "a whole number",
    "number": "a number",
    "choice": "a choice",
    "switch": "yes or no",
}
#: Whole numbers go up to what every program takes.
_ENDLESS = 2**31 - 1


class KindError(ValueError):
    """A kind, or a parameter of one, that cannot be used; the text is one sentence for its user."""


class MissingError(KindError):
    """A parameter that was not given, and has no default."""


@dataclass(frozen=True)
class Param:
    """One parameter of a kind.

    `default` is text, "" for none. `least` and `most` bound numbers. `codes` are other words for choices.
    """

    name: str
    type: Type
    help: str
    required: bool = False
    default: str = ""
    unit: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    codes: tuple[tuple[str, str], ...] = ()

    def wanted(self) -> str:
        """What it takes, in words."""
        if self.choices:
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        what = _WHAT[self.type]
        if self.least is None or self.most is None:
            return what
        if self.most >= _ENDLESS:
            return f"{what} from {as_text(self.least)} on"
        return f"{what} from {as_text(self.least)} to {as_text(self.most)}"


def text(name: str, help_: str, *, required: bool = False, default: str = "") -> Param:
    """A parameter that is any text on one line."""
    return Param(name, "text", help_, required, default)


def path(name: str, help_: str, *, required: bool = False, default: str = "") -> Param:
    """A parameter that names a file or folder."""
    return Param(name, "path", help_, required, default)


def whole(
    name: str,
    help_: str,
    least: int = 0,
    most: int = _ENDLESS,
    *,
    required: bool = False,
    default: str = "",
    unit: str = "",
) -> Param:
    """A parameter that is a whole number within bounds."""
    return Param(name, "whole", help_, required, default, unit, least, most)


def number(
    name: str, help_: str, least: float, most: float, *, required: bool = False, default: str = ""
) -> Param:
    """A parameter that is a number within bounds."""
    return Param(name, "number", help_, required, default, "", least, most)


def choice(
    name: str,
    help_: str,
    choices: Iterable[str],
    *,
    default: str = "",
    codes: Iterable[tuple[str, str]] = (),
) -> Param:
    """A parameter that is one of a few words; `codes` are other words for them."""
    return Param(name, "choice", help_, False, default, choices=tuple(choices), codes=tuple(codes))


def switch(name: str, help_: str, *, default: str = "") -> Param:
    """A parameter that is on or off."""
    return Param(name, "switch", help_, False, default)


def read_values(kind: str, params: Iterable[Param], given: Mapping[str, object]) -> dict[str, Value]:
    """The values of a kind's parameters, defaults filled in; raises KindError.

    What is given as "" or None counts as not given.
    """
    declared = {param.name: param for param in params}
    for name in given:
        if name not in declared:
            raise KindError(unknown(kind, name, declared))
    values: dict[str, Value] = {}
    for name, param in declared.items():
        value = given.get(name)
        if value is None or value == "":
            value = param.default
        if value == "" and param.type != "switch":
            if param.required:
                raise MissingError(f"the kind {kind} needs the parameter {name}: {param.help}")
            continue
        values[name] = _read(kind, param, value)
    return values


def as_text(value: Value) -> str:
    """A value as `JobSpec.params` keeps it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence about a parameter that a kind does not have."""
    import difflib  # only a mistake pays for it

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"its parameters are {', '.join(names)}"
    return f"the kind {kind} has no parameter {name!r}: {hint}"


def _read(kind: str, param: Param, given: object) -> Value:
    value = _converted(param, given)
    if value is None:
        raise KindError(f"the kind {kind}: {param.name} is {param.wanted()}, not {_shown(given)}")
    if isinstance(value, str):
        if any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise KindError(f"the kind {kind}: {param.name} holds a control character")
        # A program would take it for an option.
        if param.type == "path" and value.startswith("-"):
            return f"./{value}"
    return value


def _converted(param: Param, given: object) -> Value | None:
    """A value of the parameter's type; None for what is none."""
    if param.type == "switch":
        word = str(given).strip().lower()
        return True if word in _ON else False if word in _OFF else None
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        return None
    if param.type in ("whole", "number"):
        try:
            value = int(given) if param.type == "whole" else float(given)
        except (ValueError, OverflowError):
            return None
        fits = isfinite(value) and (not isinstance(given, float) or value == given)
        low, high = param.least, param.most
        return value if fits and (low is None or value >= low) and (high is None or value <= high) else None
    word = as_text(given)
    if param.type == "choice":
        word = dict(param.codes).get(word, word)
        folded = {each.lower(): each for each in param.choices}
        return folded.get(word.lower())
    return word


def _shown(given: object) -> str:
    shown = repr(given)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
