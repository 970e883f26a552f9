"""Jobs and changes as programs give them: their types checked before they are sent, gaps filled in.

Python checks no field of a struct that is made by hand; the wire does, and would answer with a broken link.
"""

import os
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from drqueue.client.errors import BadRequest
from drqueue.proto.checks import check_spec
from drqueue.proto.model import JobSpec
from drqueue.proto.placeholders import escaped

T = TypeVar("T")

_BOUND = re.compile(r"Expected `(?:int|float)` ([<>]=?) ([0-9.]+)")


def prepared(spec: JobSpec) -> JobSpec:
    """The job as it is sent: checked, with an owner, and a working directory for every layer.

    Where they are empty, the owner is the login name and the directory is where the program runs. Raises
    BadRequest with one sentence.
    """
    if not isinstance(spec, JobSpec):
        raise BadRequest("bad-job", f"a JobSpec is needed, not {type(spec).__name__}")
    if isinstance(spec.layers, (list, tuple)):
        for layer in spec.layers:
            if isinstance(getattr(layer, "argv", ()), str):
                raise BadRequest("bad-job", "argv is a list of words; use shell= for a string")
    spec = typed(spec, "bad-job")
    problem = check_spec(spec)
    if problem is not None:
        raise BadRequest("bad-job", problem)
    layers = spec.layers
    if not all(layer.cwd for layer in layers):
        here = working_directory()
        layers = tuple(layer if layer.cwd else msgspec.structs.replace(layer, cwd=here) for layer in layers)
    return msgspec.structs.replace(spec, owner=spec.owner or login_name(), layers=layers)


def typed(value: T, code: str) -> T:
    """The value with every field of its declared type. Raises BadRequest, whose text names the field."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        place, text = fault(error, type(value))
        raise BadRequest(code, f"{place + ': ' if place else ''}{text}") from None


def fault(error: Exception, kind: Any) -> tuple[str, str]:
    """The place in a value of that type ("" for all of it), and what is wrong there.

    msgspec names the place well, but of a number that is too small it tells one of several bounds, and of a
    word that is none of those allowed not which they are.
    """
    # msgspec writes: Expected `int`, got `str` - at `$.layers[0].chunk`
    text, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    if bound := _BOUND.fullmatch(text):
        limit = float(bound[2])
        if bound[1].startswith("<"):
            return place, f"a number {'up to' if bound[1] == '<=' else 'below'} {limit:,.12g} is expected"
        # Where fractions are allowed, too, the first bound is 1: that of whole numbers.
        above = bound[1] == ">" or limit == 1
        return place, f"a number {'above 0' if above else f'from {limit:g} on'} is expected"
    if text.startswith("Invalid enum value ") and (words := _words(kind, place)):
        return place, f"{text.removeprefix('Invalid enum value ')} is none of {', '.join(words)}"
    return place, f"{text[:1].lower()}{text[1:]}"


def _words(kind: Any, place: str) -> list[str]:
    """The words that are allowed at that place."""
    kinds = [kind]
    for name in re.findall(r"\w+(?=[.\[]|$)|\[", re.sub(r"\[[^]]*\]", "[", place)):
        kinds = [inner for each in kinds for inner in _inside(each, name)]
    return [
        str(word)
        for each in kinds
        for one in _plain(each)
        if get_origin(one) is Literal
        for word in get_args(one)
    ]


def _inside(kind: Any, name: str) -> Iterator[Any]:
    """Types of a struct's field, or ("[") of what a tuple, a list or the values of a dict hold."""
    for one in _plain(kind):
        if name == "[":
            inner = [arg for arg in get_args(one) if arg is not Ellipsis]
            yield from inner[-1:] if get_origin(one) in (tuple, list, dict) else ()
        elif isinstance(one, type) and issubclass(one, msgspec.Struct):
            yield from (field.type for field in msgspec.structs.fields(one) if field.name == name)


def _plain(kind: Any) -> Iterator[Any]:
    """The types that a union, or one with bounds, is made of."""
    if get_origin(kind) is Annotated:
        yield from _plain(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for one in get_args(kind):
            yield from _plain(one)
    else:
        yield kind


def program_of(command: str) -> str:
    """The name of the program that a command, as a shell reads it, runs first; "" for none."""
    words = (word.strip("\"'{}") for word in re.split(r"[\s;|&<>()`]+", command))
    return next((os.path.basename(word) for word in words if os.path.basename(word)), "")


def working_directory() -> str:
    """Where this program runs, by the name under which it was entered, as a layer's `cwd` names it.

    Raises BadRequest where it is gone.
    """
    try:
        here = os.environ.get("PWD", "")
        # The name with the links in it is often the one that the other machines know.
        if not (os.path.isabs(here) and os.path.samefile(here, ".")):
            here = os.getcwd()
        # A folder may be called {frame}.
        return escaped(here)
    except OSError as error:
        raise BadRequest("bad-job", f"this folder cannot be named ({error.strerror}): name a cwd") from None


def login_name() -> str:
    """The login name of the process's user; the number of a user who has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
