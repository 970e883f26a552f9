"""Where settings get their values: from the default, a file, the environment, a flag; the last one wins.

Rules of this file: in the environment a field is DRQUEUE_<FIELD>. An unknown key in a file is an error, an
unknown DRQUEUE_* variable is somebody else's. Whatever is wrong with a value is said in one sentence, by
`SettingsError`.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from drqueue import offered, oldconfig
from drqueue.settings import (
    LIST_FIELDS,
    OCTAL_FIELDS,
    MasterSettings,
    SettingsError,
    SlaveSettings,
    candidates,
    default_state_dir,
    host_name,
)

T = TypeVar("T", MasterSettings, SlaveSettings)


class Loaded(NamedTuple, Generic[T]):
    """Settings, and where each value came from ("default", a file's path, "DRQUEUE_X", "flag").

    `notes` are for whoever starts the program.
    """

    settings: T
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()


class Row(NamedTuple):
    """One line of `--print-settings`."""

    name: str
    value: str
    source: str
    help: str


def load(
    program: type[T],
    *,
    config: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    search: bool = False,
) -> Loaded[T]:
    """Collect one program's settings; a flag that is None was not given. Raises SettingsError.

    With `search`, and without `config`, files of DrQueue 0.x are looked for: see `oldconfig.places`.
    """
    env = os.environ if env is None else env
    given: dict[str, tuple[object, str]] = {}
    fields = {field.name: field.type for field in msgspec.structs.fields(program)}
    role = "master" if program is MasterSettings else "slave"

    old = _old_files(role, config, env, (flags or {}).get("state_dir"), search)
    for file in old:
        for key, (name, text) in oldconfig.fields(file).items():
            if key in fields:
                given[key] = _checked(name, key, fields[key], text, f"{file.path}: "), file.path
    for key, value in (_read_toml(config) if config is not None and not old else {}).items():
        if key not in fields:
            raise SettingsError(f"{config}: unknown key {key!r:.80}{_nearest(key, fields)}")
        given[key] = _checked(key, key, fields[key], value, f"{config}: "), str(config)
    for key, kind in fields.items():
        variable = f"DRQUEUE_{key.upper()}"
        # For a slave, this variable names the folder that its own lies in (see default_state_dir).
        if env.get(variable) and (key != "state_dir" or program is MasterSettings):
            given[key] = _checked(variable, key, kind, _from_text(key, kind, env[variable]), ""), variable
        elif key == "pools" and (named := env.get(oldconfig.POOL_VARIABLE)):
            variable = oldconfig.POOL_VARIABLE
            given[key] = _checked(variable, key, kind, oldconfig.pools(named), ""), variable
    for key, value in (flags or {}).items():
        if value is not None:
            flag = f"--{key.replace('_', '-')}"
            meant = _from_text(key, fields[key], value) if isinstance(value, str) else value
            given[key] = _checked(flag, key, fields[key], meant, ""), "flag"

    values: dict[str, Any] = {key: value for key, (value, _) in given.items()}
    sources = {key: given[key][1] if key in given else "default" for key in fields}
    for key in ("state_dir", "socket"):
        if values.get(key):
            values[key] = os.path.abspath(os.path.expanduser(values[key]))
    if not values.get("state_dir"):
        folder = default_state_dir(env)
        name = values.get("name") or host_name()
        values["state_dir"] = folder if program is MasterSettings else os.path.join(folder, f"slave-{name}")
        if env.get("DRQUEUE_STATE_DIR"):
            sources["state_dir"] = "DRQUEUE_STATE_DIR"
    if values.get("master"):
        candidates(values["master"], env)
    notes = tuple(oldconfig.note(file, role, fields) for file in old)
    return Loaded(program(**values), sources, notes)


def describe(loaded: Loaded[Any]) -> list[Row]:
    """What `--print-settings` shows: every field, its value, where that came from, and what it means."""
    rows = []
    for field in msgspec.structs.fields(loaded.settings):
        value = getattr(loaded.settings, field.name)
        rows.append(Row(field.name, _shown(field.name, value), loaded.sources[field.name], help_of(field)))
    return rows


def print_settings(loaded: Loaded[Any]) -> None:
    """Write that as a table on stdout; a reader that has seen enough (`| head`) is no failure."""
    rows = describe(loaded)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    try:
        for row in rows:
            print(
                *(f"{cell:{width}}" for cell, width in zip(row[:-1], widths, strict=False)),
                row.help,
                sep="  ",
            )
        sys.stdout.flush()
    except BrokenPipeError:
        # Else the interpreter tries once more, and complains, when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def help_of(field: msgspec.structs.FieldInfo) -> str:
    """The sentence that stands beside a field; "" where there is none."""
    descriptions = [meta.description for meta in getattr(field.type, "__metadata__", ()) if meta.description]
    return descriptions[-1] if descriptions else ""


def _old_files(
    role: str, config: str | None, env: Mapping[str, str], state_dir: object, search: bool
) -> list[oldconfig.OldFile]:
    """The files of DrQueue 0.x that count, in the order in which they do."""
    found = []
    if config is not None:
        paths = [config] if oldconfig.is_old(config) else []
    else:
        paths = oldconfig.places(role, env, str(state_dir) if state_dir else None) if search else []
    for path in paths:
        try:
            with open(path, encoding="utf-8", newline="\n") as file:
                found.append(oldconfig.parse(path, file.read()))
        except (FileNotFoundError, NotADirectoryError) as error:
            if config is not None:
                raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{path}: is not text in UTF-8") from None
        except ValueError as error:
            raise SettingsError(str(error)) from None
    return found


def _read_toml(path: str) -> dict[str, Any]:
    import tomllib  # only programs that have a file pay for its parser

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not TOML: {str(error).splitlines()[0]}") from None


def _nearest(key: str, fields: Mapping[str, object]) -> str:
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else f"; the keys are {', '.join(sorted(fields))}"


def _from_text(key: str, kind: Any, text: str) -> object:
    """What a text of the environment or a flag stands for; the text itself where it stands for nothing."""
    if key in offered.FIELDS:
        return text
    if key in OCTAL_FIELDS:
        return int(text, 8) if re.fullmatch(r"(0o)?[0-7]{1,4}", text) else text
    if key in LIST_FIELDS:
        return tuple(part for part in re.split(r"[\s,]+", text) if part)
    if text.lower() in ("yes", "on", "no", "off") and _wanted(kind) == "true or false":
        return text.lower() in ("yes", "on")
    try:
        return msgspec.convert(text, kind, strict=False)
    except ValueError:  # also of what is no Unicode
        return text


def _checked(label: str, key: str, kind: Any, value: object, where: str) -> object:
    if key in offered.FIELDS:
        try:
            return offered.read(key, value)
        except ValueError as error:
            raise SettingsError(f"{where}{label} {error}") from None
    try:
        checked: object = msgspec.convert(value, kind)
        # No path or name of the system holds a NUL.
        fits = not (isinstance(checked, str) and "\0" in checked)
    except ValueError:
        checked, fits = None, False
    if not fits:
        raise SettingsError(f"{where}{label} must be {_wanted(kind)}, not {offered.quoted(value)}")
    return checked


def _wanted(kind: Any) -> str:
    """What a field accepts, in words."""
    from msgspec import inspect  # only a mistake pays for it

    accepted = inspect.type_info(kind)
    while isinstance(accepted, inspect.Metadata):
        accepted = accepted.type
    if isinstance(accepted, inspect.UnionType):
        accepted = next(part for part in accepted.types if not isinstance(part, inspect.NoneType))
    match accepted:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=0, le=0o777):
            return "permissions in octal, from 0o000 to 0o777"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least:.10g} to {most:.10g}"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.VarTupleType(item_type=inspect.StrType(pattern=str(pattern))) if "viewer" in pattern:
            return "a list of NAME=ROLE; roles are viewer, artist, supervisor, admin and node"
        case inspect.VarTupleType(item_type=inspect.StrType(pattern=str(pattern))) if "*" in pattern[-8:]:
            return "a list of NAME, NAME=USER, or *"
        case inspect.VarTupleType():
            return "a list of 1 to 64 names without blanks, commas, colons, slashes and equals signs"
        case inspect.StrType(pattern=str()):
            return "1 to 63 letters a-z and A-Z, digits, dots, dashes, underscores, a letter or digit first"
        case _:
            return "a text"


def _shown(key: str, value: object) -> str:
    if value is None:
        return "as measured"
    if isinstance(value, dict):
        return offered.shown(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        f"0o{value:03o}" if key in OCTAL_FIELDS else f"{value:g}" if isinstance(value, float) else str(value)
    )
