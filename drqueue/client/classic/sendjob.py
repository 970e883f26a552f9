"""`sendjob`: a job from a file that describes it, by a job script that is written for it.

The script goes to $DRQUEUE_TMP, else $DRQUEUE_ROOT/tmp, else the temporary folder: a place that the slaves
see under the same name.
"""

import os
import re
import shutil
from typing import TYPE_CHECKING, Final

from drqueue.client.classic.front import Given, Refused, Tool

if TYPE_CHECKING:
    from drqueue.client import binding
    from drqueue.client.kinds.sendjob import SendJob

GENERAL: Final = "general"

_USAGE: Final = """\
Usage: sendjob -t TYPE [-f S:E:ST] [-d] FILE

  -t TYPE    general, maya, mentalray, blender, lightwave, terragen, shake,
             nuke, 3delight, pixie, aqsis, mantra, aftereffects, xsi, luxrender
  -f S:E:ST  first frame, last frame and step, all three; for type general only
  -d         debug: print the job before it is sent
  -v         print the version
  -h         print this help

FILE is the command itself for type general, which is called with the number
of each frame; else it has one value on each line, in the order of its type."""


def _sendjob(given: Given) -> None:
    kind = given.letters.get("t", "").lower()
    if not kind:
        raise Refused("-t is missing: the type (see sendjob -h)")

    from drqueue.client.kinds.sendjob import FORMATS

    if kind not in (GENERAL, *FORMATS):
        raise Refused(f"there is no type {kind!r} (see sendjob -h)")
    if not given.words:
        raise Refused("the file is missing (see sendjob -h)")
    (file,) = given.words
    if not file.isprintable():
        raise Refused(f"{file!r} is no name of a file for this tool")
    if kind != GENERAL and "f" in given.letters:
        raise Refused("-f is for type general only: the file says the frames")
    start, end, step = _frames(given.letters.get("f", "1:1:1"))

    import sys

    from drqueue.client.binding import job_report
    from drqueue.client.classic.asking import ask
    from drqueue.client.kinds.words import quoted

    said = _general(file, start, end, step) if kind == GENERAL else _described(kind, file)
    job = _job(said, file)
    script = _script(said)
    job.cmd = quoted(script)
    if "d" in given.letters:
        job_report(job)
        sys.stdout.flush()
    try:
        ask(lambda _: job.send_to_queue())
    except Refused:
        os.unlink(script)
        raise
    print("Job sent successfuly to the queue", file=sys.stderr)


def _frames(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise Refused(f"-f {text!r}: first frame, last frame and step are three numbers, as in 1:100:1")
    start, end, step = map(int, match.groups())
    if end < start:
        raise Refused(f"-f {text!r}: the last frame is before the first one")
    return start, end, max(1, step)


def _general(file: str, start: int, end: int, step: int) -> "SendJob":
    """The job for a command that is a file, or one that the slaves find on their PATH."""
    if os.path.isfile(file):
        script = os.path.abspath(file)
        if not os.access(script, os.X_OK):
            raise Refused(f"{file} cannot be executed: chmod +x it")
    elif "/" not in file and shutil.which(file) is not None:
        script = file
    else:
        raise Refused(f"there is no file {file}")

    from drqueue.client.kinds.sendjob import SendJob

    return SendJob(kind=GENERAL, name=file, start=start, end=end, step=step, params={"script": script})


def _described(kind: str, file: str) -> "SendJob":
    """The job that a file describes."""
    from drqueue.client.kinds.sendjob import SendJobError, read_sendjob

    try:
        with open(file, encoding="utf-8") as opened:
            text = opened.read(1 << 20)
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Refused(f"{file}: it is no text in UTF-8") from None
    try:
        return read_sendjob(kind, text)
    except SendJobError as error:
        raise Refused(f"{file}: {error}") from None


def _job(said: "SendJob", file: str) -> "binding.job":
    """The job, without its command."""
    from drqueue.client import binding

    job = binding.job()
    try:
        job.name = said.name
        job.owner = said.owner or _login()
        job.email = job.owner
        job.priority = said.priority
        job.frame_start, job.frame_end, job.frame_step = said.start, said.end, said.step
        job.frame_pad, job.block_size = said.pad, said.block_size
        job.limits.nmaxcpus = said.max_cpus or job.limits.nmaxcpus
        _tell_kind(job, said)
    except (TypeError, OverflowError) as error:
        raise Refused(f"{file}: {error}") from None
    return job


def _tell_kind(job: "binding.job", said: "SendJob") -> None:
    """Say in the job what it renders: `koj`, and in `koji` what that has a name for."""
    from drqueue.client import binding
    from drqueue.client.binding.koji import MEMBERS

    job.koj = getattr(binding, f"KOJ_{said.kind.upper()}")
    member = getattr(job.koji, MEMBERS[job.koj])
    names = {name.lower(): name for name in member.fields}
    for name, value in said.params.items():
        plain = name.replace("_", "")
        if plain in names:
            field = names[plain]
            setattr(member, field, int(value) if isinstance(getattr(member, field), int) else value)


def _script(said: "SendJob") -> str:
    """Write the job's script; its path."""
    from drqueue.client.kinds import find
    from drqueue.client.kinds.scripts import ANY_SCRIPT, write

    try:
        return write(ANY_SCRIPT if said.kind == "general" else find(said.kind), **said.params)
    except OSError as error:
        raise Refused(str(error)) from None


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


SENDJOB: Final = Tool("sendjob", _USAGE, "t:f:d", _sendjob, files=1)
