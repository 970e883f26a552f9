"""What DrQueue 0.x kept its settings in: `key=value` files, and DRQUEUE_POOL.

Rules: pure; `settings.load` reads the files and decides what wins. Such a file is understood as 0.x did:
lines `key=value`, `#` in front of a comment, no quotes, no blanks around `=`; an unknown key is an error.
Whoever has one is told how to write it today. `ValueError` carries one sentence.
"""

import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

ETC: Final = "/etc/drqueue"
SERVICE_STATE: Final = "/var/lib/drqueue-"
KEYS: Final = ("root", "logs", "tmp", "bin", "etc", "db", "pool")
POOL_VARIABLE: Final = "DRQUEUE_POOL"


class OldFile(NamedTuple):
    """One such file: its path and what it sets, by key; what is set to nothing is left out."""

    path: str
    values: Mapping[str, str]


def is_old(path: str) -> bool:
    """Whether a file that `--config` names is one of these; all others are TOML."""
    return path.endswith(".conf")


def places(program: str, env: Mapping[str, str], state_dir: str | None) -> list[str]:
    """Where a "master" or "slave" without `--config` looks for one: a later file wins over an earlier one.

    Nowhere, unless its state lies where that of a service does, or where it lies without being told:
    farms for trials and second daemons on a machine are not the farm that such a file was written for.
    """
    named = state_dir or env.get("DRQUEUE_STATE_DIR")
    if named and os.path.normpath(named) != SERVICE_STATE + program:
        return []
    folders = [ETC]
    if etc := env.get("DRQUEUE_ETC"):
        folders.append(etc)
    elif root := env.get("DRQUEUE_ROOT"):
        folders.append(os.path.join(root, "etc"))
    paths = [os.path.join(folder, f"{program}.conf") for folder in folders]
    return list(dict.fromkeys(map(os.path.normpath, paths)))


def parse(path: str, text: str) -> OldFile:
    """What such a file says. Raises ValueError, which names the file and the line."""
    values: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        where = f"{path}: line {number}"
        if not equals:
            raise ValueError(f"{where}: {line!r:.80} is not KEY=VALUE")
        if key.rstrip() not in KEYS:
            raise ValueError(
                f"{where}: unknown key {key.rstrip()!r:.80}; a file called *.conf is one of DrQueue 0.x,"
                f" whose keys are {', '.join(KEYS)}; settings of today stand in a *.toml file"
            )
        if key != key.rstrip() or value != value.lstrip():
            raise ValueError(f"{where}: no blanks may stand around the equals sign of {key.rstrip()!r}")
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise ValueError(f"{where}: {key!r} holds a control character")
        values[key] = value
    return OldFile(path, {key: value for key, value in values.items() if value})


def pools(text: str) -> tuple[str, ...]:
    """The pools of a `pool=` line or of DRQUEUE_POOL, each once."""
    return tuple(dict.fromkeys(part for part in re.split(r"[\s:,=]+", text) if part))


def fields(file: OldFile) -> dict[str, tuple[str, str | tuple[str, ...]]]:
    """For each setting of today that a file may have a value for: the file's key, and the value."""
    return {
        "pools" if key == "pool" else key: (key, pools(value) if key == "pool" else value)
        for key, value in file.values.items()
    }


def note(file: OldFile, program: str, known: Collection[str]) -> str:
    """What to tell whoever starts a "master" or "slave" with such a file; `known` are its settings."""
    lines = [
        f"{file.path} is a file of DrQueue 0.x. It is read, but the environment wins over it, which was",
        f"the other way round. The same for a file of today, say {ETC}/{program}.toml, named by --config:",
    ]
    for field, (key, value) in fields(file).items():
        if field in known:
            lines.append(f"    {field} = {_toml(value)}")
        elif (program, key) == ("master", "db"):
            lines.append(
                f"    # {key}={file.values[key]} is not used: a master keeps all it knows in state_dir"
            )
        else:
            lines.append(f"    # {key}={file.values[key]} means nothing to a {program}")
    return "\n".join(lines)


def _toml(value: str | tuple[str, ...]) -> str:
    # What JSON writes for these is TOML, too: `parse` lets no DEL pass, the one that JSON would leave alone.
    return json.dumps(value, ensure_ascii=False)
