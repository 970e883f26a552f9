"""Jobs and changes as programs give them: their types checked before they are sent, gaps filled in.

Python checks no field of a struct that is made by hand; the wire does, and would answer with a broken link.
"""

import os
import re
from typing import TypeVar

import msgspec

from drqueue.client.errors import BadRequest
from drqueue.proto.checks import check_spec
from drqueue.proto.model import JobSpec
from drqueue.proto.placeholders import escaped

T = TypeVar("T")


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
        # msgspec writes: Expected `int`, got `str` - at `$.layers[0].chunk`
        text, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").removeprefix(".")
        raise BadRequest(code, f"{field + ': ' if field else ''}{text[:1].lower()}{text[1:]}") from None


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
