"""What can be set, in one place: one frozen class per program, and where its master is looked for.

Rules of this file: nothing here is global, settings are handed down. Each field has its default, its bounds
and the sentence that `--print-settings` and the manual show. Durations are in seconds and end in `_s`. Where
values come from is in `drqueue.configuration`.
"""

import os
import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from drqueue import offered
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
    "MasterSettings",
    "SettingsError",
    "SlaveSettings",
    "candidates",
    "default_state_dir",
    "host_name",
    "master_candidates",
    "parse_address",
]  # fmt: skip

OCTAL_FIELDS: Final = ("socket_mode", "umask")
LIST_FIELDS: Final = ("pools", "local_roles", "map_users")
#: A beat in each third of the shortest lease that a job may have.
LONGEST_BEAT_S = 10.0
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
        if self.beat_s > LONGEST_BEAT_S:
            raise SettingsError(
                f"beat_s ({self.beat_s:g}) must be at most {LONGEST_BEAT_S:g}: jobs may have leases of 30 s,"
                " which the beats have to renew"
            )
        if self.lease_s < 3 * self.beat_s:
            raise SettingsError(
                f"lease_s ({self.lease_s:g}) must be at least three times beat_s ({self.beat_s:g}),"
                " which has to renew it"
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
    cgroups: Annotated[
        Literal["auto", "off"],
        Meta(description="Whether each frame gets a cgroup of its own, where it can: auto or off."),
    ] = "auto"
    pids_most: Annotated[
        int,
        Meta(ge=0, le=4_194_304, description="Most processes and threads of a frame, with cgroups; 0: any."),
    ] = 4096
    memory_limit: Annotated[
        bool,
        Meta(description="Whether a frame that takes more memory than it asks for is ended, with cgroups."),
    ] = False
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
            msgspec.structs.force_setattr(self, "name", host_name())
        if not self.state_dir:
            folder = os.path.join(default_state_dir(os.environ), f"slave-{self.name}")
            msgspec.structs.force_setattr(self, "state_dir", folder)


def host_name() -> str:
    """This machine's name, of letters that a slave's name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", os.uname().nodename)[:63].lstrip("._-")
    return name or "slave"
