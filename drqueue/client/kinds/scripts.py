"""Job scripts as the original's generators wrote them.

A script is Python of the standard library alone and runs on a node without DrQueue. It has one line for
each parameter, reads DRQUEUE_*, renders all frames of its attempt, their step counted, and ends with a status
other than 0 where a call fails, after "Requeueing frame...": to a slave that is a failure, and nobody has to
kill the shell. Values are written as Python literals, so no text in them becomes code. The umask is the
slave's (the original's scripts set 0, which let everybody overwrite the pictures).

Parameters are those of the kind, in upper or lower case, and besides `scriptdir` ($DRQUEUE_TMP, else
$DRQUEUE_ROOT/tmp, else the temporary folder) and `file_owner`, which is only written down.
"""

import os
import re
import shlex
import tempfile
import time

from drqueue.client.kinds.kind import Calls, Command, Kind
from drqueue.client.kinds.params import KindError, MissingError, path, unknown
from drqueue.client.kinds.words import as_python, words_of


class ScriptError(IOError):
    """A script that cannot be written; the text is one sentence."""


ANY_SCRIPT = Kind(
    "general",
    "a script",
    "A script that is called with the number of each frame.",
    (path("script", "the script, or a command with arguments", required=True),),
    Command("frame", ("{script}", "{frame}")),
    classic=("uid_owner", "gid_owner"),
)

_CALLS: dict[Calls, str] = {
    "once": "[command(frames=listed(numbers))]",
    "range": "[command(start=min(numbers), end=max(numbers), step=abs(step_of(numbers)))]",
    "dots": "[command(dots=listed(numbers, '..'))]",
    "span": """(
        [command(start=numbers[0], end=numbers[-1])]
        if step_of(numbers) == 1
        else [command(start=number, end=number) for number in numbers]
    )""",
    "frame": "[command(frame=number) for number in numbers]",
    "strip": "[command(frame=number, **strip(number)) for number in numbers]",
}

_HEAD = r'''#!/usr/bin/env python3
"""Renders frames with {title}: a job script of DrQueue."""

import os
import re
import shlex
import subprocess
import sys

{lines}

THREADS = os.environ.get("DRQUEUE_THREADS", "1")


def padded(number, width):
    return "%0*d" % (width, int(number))


def numbered(path, number):
    """A path, the last run of # in its file's name replaced by the number."""
    return re.sub(r"#+(?=[^#/]*\Z)", lambda run: padded(number, len(run[0])), path)


def members():
    """The numbers of the frames to render, in order."""
    frame = int(os.environ["DRQUEUE_FRAME"])
    listed = [int(word) for word in os.environ.get("DRQUEUE_PADFRAMES", "").split()]
    if listed and listed[0] == frame:
        return listed
    step = int(os.environ.get("DRQUEUE_STEPFRAME", "1")) or 1
    block = max(1, int(os.environ.get("DRQUEUE_BLOCKSIZE", "1")))
    end = int(os.environ.get("DRQUEUE_ENDFRAME", frame))
    last = frame + (block - 1) * step
    last = min(last, end) if step > 0 else max(last, end)
    return list(range(frame, last + (1 if step > 0 else -1), step))


def shortened(word):
    """A word for the log: its first line, and of that no more than 100 characters."""
    line = word.split("\n", 1)[0][:100]
    return word if line == word else line + "..."


def step_of(numbers):
    return numbers[1] - numbers[0] if len(numbers) > 1 else 1


def listed(numbers, between="-"):
    """1-4 or 1,3,5."""
    if len(numbers) > 1 and step_of(numbers) == 1:
        return "%d%s%d" % (numbers[0], between, numbers[-1])
    return ",".join(str(number) for number in numbers)


'''

_STRIP = '''\
def strip(number):
    """Which part of the picture that is: the job's first frame is at the top, the last one at the bottom."""
    first = int(os.environ.get("DRQUEUE_STARTFRAME", "1"))
    parts = PARTS or int(os.environ.get("DRQUEUE_ENDFRAME", number)) - first + 1
    part = number - first + 1
    low, high = HEIGHT * (parts - part) // parts, HEIGHT * (parts - part + 1) // parts
    return {"part": part, "parts": parts, "low": low, "high": high}


'''

_COMMAND = """\
def command(frame=0, start=0, end=0, step=1, frames="", dots="", part=0, parts=0, low=0, high=0):
    threads = THREADS
    return {words}


def main():
    numbers = members()
{enter}    for words in {calls}:
        print(" ".join(shlex.quote(shortened(word)) for word in words), flush=True)
        try:
            status = subprocess.call(words)
        except OSError as error:
            print("%s: %s" % (words[0], error.strerror), flush=True)
            status = 127
        if status:
            print("Requeueing frame...", flush=True)
            sys.exit(status if status > 0 else 128 - status)
    print("Finished.", flush=True)


main()
"""


def write(kind: Kind, **params: object) -> str:
    """Write the kind's script and return its path; raises ScriptError."""
    given = {name.lower(): value for name, value in params.items()}
    folder = given.pop("scriptdir", None) or default_script_dir()
    notes = {name: given.pop(name) for name in ("file_owner", *kind.classic) if name in given}
    try:
        script = _script(kind, _chosen(kind, given), notes)
    except MissingError as error:
        said = str(error)
        raise ScriptError(f"Information not complete. {said[:1].upper()}{said[1:]}") from None
    except KindError as error:
        raise ScriptError(str(error)) from None
    first = next(param.name for param in kind.params if param.required)
    base = os.path.basename(str(given[first])).rstrip("/") or kind.name
    # Its path becomes a command: no character of it may need quotes.
    base = re.sub(r"[^\w.@%+=:,-]", "_", base, flags=re.ASCII).lstrip("-")[:100]
    return _create(os.path.abspath(str(folder)), f"{base}.{int(time.time()):x}", script)


def default_script_dir() -> str:
    """Where scripts go: $DRQUEUE_TMP, else $DRQUEUE_ROOT/tmp, else the temporary folder."""
    if os.environ.get("DRQUEUE_TMP"):
        return os.environ["DRQUEUE_TMP"]
    root = os.environ.get("DRQUEUE_ROOT")
    return os.path.join(root, "tmp") if root else tempfile.gettempdir()


def _create(folder: str, name: str, script: str) -> str:
    """Write a new executable file; one that is there already is left alone."""
    number = 0
    while True:
        made = os.path.join(folder, f"{name}.{number}" if number else name)
        try:
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise ScriptError(f"no script can be written to {folder}: {error.strerror}") from None
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o755)
            file.write(script)
        return made


def _chosen(kind: Kind, given: dict[str, object]) -> dict[str, object]:
    """What was given, as the kind has it: the original's second switches are obeyed, and its defaults."""
    if kind.name == "mantra":
        for name in [name for name in given if name.startswith("custom_")]:
            wanted = str(given.pop(name)).lower() not in ("0", "", "false", "no", "none")
            for one in ("width", "height") if name == "custom_wh" else (name.removeprefix("custom_"),):
                if not wanted:
                    given.pop(one, None)
    if kind.name == "blender" and not given.get("output") and given.get("scene"):
        # Beside the scene.
        single = str(given.get("render_type", "")) in ("2", "single")
        given["output"] = f"{given['scene']}####"
        given["format"] = given.get("format") or ("PNG" if single else "")
    if kind.name == "mentalray" and str(given.get("render_type", "")) in ("2", "single"):
        given = {**_said_in(str(given.get("scene", ""))), **{k: v for k, v in given.items() if v}}
    for name in given:
        if name not in {param.name for param in kind.params}:
            raise KindError(unknown(kind.name, name, [param.name for param in kind.params]))
    return given


def _said_in(scene: str) -> dict[str, object]:
    """Size and name of the picture, as an .mi file says them; nothing where it cannot be read here."""
    try:
        with open(scene, encoding="latin-1") as file:
            text = file.read(1_000_000)
    except OSError:
        return {}
    said: dict[str, object] = {}
    if size := re.search(r"^\s*resolution\s+([0-9]+)\s+([0-9]+)", text, re.MULTILINE):
        said.update(res_x=size[1], res_y=size[2])
    if name := re.search(r'^\s*output\s.*"([^"/]+)\.([A-Za-z0-9]+)"', text, re.MULTILINE):
        said.update(image=name[1], format=name[2])
    return said


def _script(kind: Kind, given: dict[str, object], notes: dict[str, object]) -> str:
    """The text of the script."""
    values = kind.values(given)
    command = kind.command_of(values)
    words = as_python(words_of(command.words, values))
    shown: dict[str, object] = {**values}
    if command.calls == "strip":
        shown["parts"] = values.get("parts", 0)
        shown["height"] = values.get(command.height, 0) if command.height else 0
    if kind is ANY_SCRIPT:
        words = "[*called(SCRIPT), str(frame)]"
        _check_words(str(values["script"]))
    owner = notes.pop("file_owner", None)
    lines = {**shown, **({"rf_owner": owner} if owner is not None else {}), **notes}
    head = _HEAD.replace("{title}", kind.title)
    head = head.replace("{lines}", "\n".join(f"{name.upper()} = {_literal(v)}" for name, v in lines.items()))
    more = (_STRIP if command.calls == "strip" else "") + (_CALLED if kind is ANY_SCRIPT else "")
    enter = f"    os.chdir({command.folder.upper()})\n" if command.folder in values else ""
    main = _COMMAND.replace("{enter}", enter).replace("{calls}", _CALLS[command.calls])
    return head + more + main.replace("{words}", words)


_CALLED = '''\
def called(script):
    """The words of a script's call: a file, or a command with arguments."""
    if os.path.exists(script):
        return [script if "/" in script else "./" + script]
    return shlex.split(script)


'''


def _check_words(script: str) -> None:
    try:
        if not os.path.exists(script):
            shlex.split(script)
    except ValueError as error:
        raise KindError(f"the script {script!r} cannot be read as a command: {str(error).lower()}") from None


def _literal(value: object) -> str:
    """A value as Python code that is nothing else."""
    return repr(value) if isinstance(value, (bool, int, float)) else ascii(str(value))
