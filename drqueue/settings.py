"""What can be set, in one place: one frozen class per program, and where its master is looked for.

Rules of this file: a value comes from the default, then the TOML file, then the environment
(DRQUEUE_<FIELD>), then a flag; the last one wins. An unknown key in a file is an error, an unknown DRQUEUE_*
variable is somebody else's. Nothing here is global: settings are handed down. Whatever is wrong with a value
is said in one sentence, by `SettingsError`. Durations are in seconds and end in `_s`.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from drqueue import offered, oldconfig
from drqueue.address import (
    Address,
    SettingsError,
    candidates,
    default_state_dir,
    master_candidates,
    parse_address,
)

__all__ = [
    "LIST_FIELDS",
    "OCTAL_FIELDS",
    "SELF",
    "Address",
    "Loaded",
    "MasterSettings",
    "Row",
    "SettingsError",
    "SlaveSettings",
    "candidates",
    "default_state_dir",
    "describe",
    "help_of",
    "load",
    "master_candidates",
    "parse_address",
    "print_settings",
]  # fmt: skip

OCTAL_FIELDS: Final = ("socket_mode", "umask")
LIST_FIELDS: Final = ("pools", "local_roles", "map_users")
#: In place of a user: frames run as whoever the slave runs as.
SELF: Final = "self"

LogLevel = Literal["debug", "info", "warning", "error"]
Seconds = Annotated[float, Meta(ge=0.01, le=31_536_000.0)]
Days = Annotated[int, Meta(ge=1, le=36500)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Times = Annotated[int, Meta(ge=0, le=1_000_000)]
Mode = Annotated[int, Meta(ge=0, le=0o777)]
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
Pool = Annotated[str, Meta(pattern=r"\A[^\s,=:/\ud800-\udfff]{1,63}\Z")]
LocalRole = Annotated[str, Meta(pattern=r"\A[^\s,=:/]{1,63}=(viewer|artist|supervisor|admin|node)\Z")]
UserMap = Annotated[str, Meta(pattern=r"\A([^\s,=:/]{1,63}(=[^\s,=:/]{1,63})?|\*)\Z")]


class _Common(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    state_dir: Annotated[str, Meta(description="Folder of this daemon's own files; made with mode 0700.")] = (
        ""
    )
    log_level: Annotated[
        LogLevel, Meta(description="Least important kind of line that is logged on stderr.")
    ] = "info"


class MasterSettings(_Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set about a master."""

    socket: Annotated[
        str, Meta(description="Path of its Unix socket; default: master.sock in state_dir.")
    ] = ""
    socket_mode: Annotated[
        Mode,
        Meta(description="Permissions of its Unix socket, octal: whoever may write to it may use the farm."),
    ] = 0o600
    listen: Annotated[
        str,
        Meta(description="HOST:PORT where it listens on the network, by TLS alone; empty: not at all."),
    ] = ""
    address: Annotated[
        str,
        Meta(description="HOST[:PORT] by which others reach it, for join lines; default: its own address."),
    ] = ""
    local_roles: Annotated[
        tuple[LocalRole, ...],
        Meta(
            max_length=1000,
            description="Roles of this machine's users: NAME=ROLE or UID=ROLE; the others are artists.",
        ),
    ] = ()
    artist_max_priority: Annotated[
        int, Meta(ge=0, le=2**32 - 1, description="Highest priority that an artist may give a job.")
    ] = 1000
    audit_days: Annotated[Days, Meta(description="Days that the audit stays.")] = 365
    backoff_s: Annotated[
        Seconds, Meta(description="Pause before a failed frame is tried again, doubled with each failure.")
    ] = 5.0
    backoff_max_s: Annotated[Seconds, Meta(description="Longest such pause.")] = 300.0
    avoid_after: Annotated[Times, Meta(description="Failures for which a job avoids a slave; 0: never.")] = 3
    forgive_s: Annotated[Seconds, Meta(description="Time for which it avoids it.")] = 3600.0
    sick_after: Annotated[Times, Meta(description="Failures in a row that make a slave sick; 0: never.")] = 5
    beat_s: Annotated[Seconds, Meta(description="Longest quiet on a link before either end says a word.")] = (
        10.0
    )
    silence_s: Annotated[Seconds, Meta(description="Silence after which a slave's link is closed.")] = 30.0
    lease_s: Annotated[
        Seconds, Meta(description="Time without the master after which a slave ends its frames.")
    ] = 1800.0
    upgrade_lease_s: Annotated[
        Seconds, Meta(description="The same, after a master that was stopped in good order.")
    ] = 86400.0
    requeue_fast_s: Annotated[
        Seconds, Meta(description="Silence after which frames of requeue-fast jobs start elsewhere.")
    ] = 60.0
    keep_days: Annotated[Days, Meta(description="Days that a finished job stays.")] = 30
    history_days: Annotated[Days, Meta(description="Days that the history of attempts stays.")] = 365
    logs_keep_mb: Annotated[
        Count,
        Meta(description="Room for the first and last parts of frames' logs; the oldest go first (MB)."),
    ] = 4096
    backup_hours: Annotated[
        float,
        Meta(ge=0, le=8760, description="Hours between two backups of the database; 0: none by itself."),
    ] = 24.0
    backups_keep: Annotated[
        int, Meta(ge=1, le=1000, description="Backups that are kept; beyond that the oldest go.")
    ] = 7
    mail_command: Annotated[
        str,
        Meta(
            description="Program that is given mails on its stdin, and its words; default: sendmail -t -oi."
        ),
    ] = ""

    def __post_init__(self) -> None:
        if not self.state_dir:
            msgspec.structs.force_setattr(self, "state_dir", default_state_dir(os.environ))
        if not self.socket:
            msgspec.structs.force_setattr(self, "socket", os.path.join(self.state_dir, "master.sock"))
        if self.silence_s < 2 * self.beat_s:
            raise SettingsError(
                f"silence_s ({self.silence_s:g}) must be at least twice beat_s ({self.beat_s:g}),"
                " or one late word would cut a link"
            )
        if self.backoff_max_s < self.backoff_s:
            raise SettingsError(
                f"backoff_max_s ({self.backoff_max_s:g}) must not be below backoff_s ({self.backoff_s:g})"
            )
        if self.mail_command:
            from drqueue.mail import MailError, shlex_words  # only who sets it pays for it

            try:
                shlex_words(self.mail_command)
            except MailError as error:
                raise SettingsError(str(error)) from None


class SlaveSettings(_Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set about a slave; DRQUEUE_STATE_DIR names the folder that state_dir is in."""

    name: Annotated[
        Name | Literal[""],
        Meta(description="Name on the farm; default: as it joined, else the host's. A taken one gets -2."),
    ] = ""
    master: Annotated[
        str, Meta(description="Its master: HOST[:PORT], unix:PATH, or localhost for the one on this machine.")
    ] = ""
    cores: Annotated[Count | None, Meta(description="Cores it offers; default: as measured.")] = None
    memory_mb: Annotated[Count | None, Meta(description="Memory it offers (MB); default: as measured.")] = (
        None
    )
    gpus: offered.Gpus = "all"
    disk_mb: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000_000)] | None,
        Meta(description="Room for scratch files it offers (MB); default: what is free at its start."),
    ] = None
    amounts: offered.Amounts = {}
    tags: offered.Tags = ()
    attributes: offered.Attributes = {}
    pools: Annotated[
        tuple[Pool, ...], Meta(min_length=1, max_length=64, description="Pools it works for.")
    ] = ("Default",)
    enabled: Annotated[
        bool, Meta(description="Whether it starts as it was left; false: it is disabled at each start.")
    ] = True
    max_cpus: Annotated[
        Count | None, Meta(description="Most cores that the farm uses of it; default: all that it offers.")
    ] = None
    path: Annotated[str, Meta(min_length=1, description="PATH of its frames.")] = (
        "/usr/local/bin:/usr/bin:/bin"
    )
    home: Annotated[str, Meta(description="HOME of its frames; default: from the user database.")] = ""
    lang: Annotated[str, Meta(description="LANG of its frames; empty: unset.")] = "C.UTF-8"
    tz: Annotated[str, Meta(description="TZ of its frames; empty: unset.")] = ""
    umask: Annotated[Mode, Meta(description="umask of its frames, octal.")] = 0o022
    grace_s: Annotated[
        Seconds, Meta(description="Time between TERM and KILL for a frame that is stopped.")
    ] = 10.0
    log_cap_mb: Annotated[
        Count, Meta(description="Longest log of one attempt; its middle goes first (MB).")
    ] = 64
    logs_keep_mb: Annotated[
        Count, Meta(description="Room for whole logs of ended attempts; the oldest go first (MB).")
    ] = 2048
    logs: Annotated[
        str,
        Meta(description="Folder, as a rule shared, of copies of frames' logs by job name; empty: none."),
    ] = ""
    root: Annotated[str, Meta(description="DRQUEUE_ROOT of its frames; empty: unset.")] = ""
    tmp: Annotated[str, Meta(description="DRQUEUE_TMP of its frames; empty: unset.")] = ""
    etc: Annotated[str, Meta(description="DRQUEUE_ETC of its frames; empty: unset.")] = ""
    bin: Annotated[str, Meta(description="DRQUEUE_BIN of its frames; empty: unset.")] = ""
    db: Annotated[str, Meta(description="DRQUEUE_DB of its frames; empty: unset.")] = ""
    report_s: Annotated[
        Seconds, Meta(description="Time between two reports of load and memory, where little changes.")
    ] = 15.0
    control: Annotated[
        bool,
        Meta(description="Whether clients may ask it directly: at control.sock in state_dir, and by ticket."),
    ] = True
    control_listen: Annotated[
        str,
        Meta(
            description="HOST:PORT for clients with tickets, once joined; default: port 2345, or a free one."
        ),
    ] = ""
    run_as: Annotated[
        str,
        Meta(
            description="User of its frames, where it may change users; default: render; self: its own user."
        ),
    ] = ""
    map_users: Annotated[
        tuple[UserMap, ...],
        Meta(
            max_length=1000,
            description="Submitters whose frames run as themselves, NAME, or as NAME=USER; *: all there are.",
        ),
    ] = ()
    work_dir: Annotated[
        str,
        Meta(
            description="Folder of scratch directories; default: in state_dir, or beside it for other users."
        ),
    ] = ""

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", _host_name())
        if not self.state_dir:
            folder = os.path.join(default_state_dir(os.environ), f"slave-{self.name}")
            msgspec.structs.force_setattr(self, "state_dir", folder)


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
        name = values.get("name") or _host_name()
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


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename)[:63].lstrip("._-")
    return name or "slave"


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
