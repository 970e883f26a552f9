"""`drqueue`: the command line's entry, its table of commands, and what errors look like.

Rules: a command's module is imported when the command is used; `--help` reads the table below instead. Every
error is one sentence on stderr. Exit status: 0 ok, 1 failed, 2 usage, 3 not found or not let in, 69 master
unreachable, 130 Ctrl-C.
"""

import os
import re
import sys
from importlib import import_module
from typing import Any, NamedTuple

import click

from drqueue import __version__
from drqueue.client.cli.common import START_ONE, Asked, Commands, KindMistake, common, interrupted
from drqueue.client.errors import (
    BadRequest,
    DrQueueError,
    FarmFailed,
    MasterUnreachable,
    NotAllowed,
    NotFound,
    NotLoggedIn,
    WrongCertificate,
)

OK, FAILED, USAGE, NOT_FOUND, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 69, 130


class Entry(NamedTuple):
    """Where a command lives, and its line in the list of commands."""

    module: str
    function: str
    help: str


COMMANDS = {
    "up": Entry("up", "up", "Run a farm on this machine, in the foreground."),
    "demo": Entry("demo", "demo", "Render an animation on a farm started for it."),
    "submit": Entry("submit", "submit", "Queue a job and print its id."),
    "kinds": Entry("kinds", "kinds", "List kinds of job, or one kind's parameters."),
    "jobs": Entry("jobs", "jobs", "List jobs."),
    "job": Entry("jobs", "job", "Show one job."),
    "frames": Entry("frames", "frames", "List a job's frames."),
    "attempts": Entry("frames", "attempts", "List the attempts at a frame."),
    "log": Entry("log", "log", "Show a frame's log."),
    "wait": Entry("wait", "wait", "Wait for jobs to finish."),
    "why": Entry("why", "why", "Say why a job or a frame does not render."),
    "stop": Entry("jobs", "stop", "Start no more frames of jobs; running ones end normally."),
    "hard-stop": Entry("jobs", "hard_stop", "Stop jobs and end their running frames."),
    "continue": Entry("jobs", "continue_", "Let stopped jobs go on."),
    "rerun": Entry("jobs", "rerun", "Render all frames of jobs again."),
    "delete": Entry("jobs", "delete", "End jobs and forget them."),
    "set": Entry("set_job", "set_job", "Change a job's priority, range or limits."),
    "frame": Entry("frames", "frame", "Kill, requeue, finish, reset or hurry frames."),
    "slaves": Entry("slaves", "slaves", "List slaves."),
    "slave": Entry("slaves", "slave", "Show a slave, or enable, limit, heal, forget one."),
    "farm": Entry("farminfo", "farm", "Say how the farm does, or resume it after a restore."),
    "doctor": Entry("doctor", "doctor", "Say what is well and what is not with the farm."),
    "limit": Entry("limits", "limit", "List, set and drop limits: licences, quotas."),
    "share": Entry("shares", "share", "List, set and drop shares of projects and users."),
    "pool": Entry("pools", "pool", "List pools and how long frames wait, or set a policy."),
    "login": Entry("login", "login", "Log in to a farm with the line that an admin gave you."),
    "logout": Entry("login", "logout", "Forget the login for a farm."),
    "whoami": Entry("login", "whoami", "Say who the master takes you for."),
    "node": Entry("accounts", "node", "Bring nodes to the farm, list them, take them away."),
    "user": Entry("accounts", "user", "Bring people to the farm, list them, take them away."),
    "audit": Entry("audit", "audit", "Show what was done, and what was refused."),
    "classic": Entry("classic", "classic", "Run one of the original's tools: sendjob, cjob, jobinfo ..."),
    "help": Entry("help", "help_", "Explain drqueue, or one command."),
    "completion": Entry("completion", "completion", "Print the shell's completion script."),
}


#: Headings in the list of commands, each above the command that it begins with.
_HEADINGS = {
    "up": "A farm on this machine",
    "submit": "Jobs and frames",
    "slaves": "Slaves and the farm",
    "limit": "Who gets how much",
    "login": "Who may use it",
    "classic": "More",
}


class Lazy(Commands):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"drqueue.client.cli.{entry.module}"), entry.function)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click makes a failure of it
            return _nobody_reads()
        except KeyboardInterrupt:  # before click says an empty line about it
            return INTERRUPTED

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = list(COMMANDS)
        width = max(map(len, names))
        starts = [*(names.index(name) for name in _HEADINGS), len(names)]
        for heading, start, end in zip(_HEADINGS.values(), starts, starts[1:], strict=False):
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), COMMANDS[name].help) for name in names[start:end]])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", message="drqueue %(version)s")
@common
def cli() -> None:
    """A render farm: queue jobs, look at them, look after the farm.

    The master is the one that --master or DRQUEUE_MASTER names, else the first on this machine that answers.
    """


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command line; returns its exit status."""
    try:
        result = cli.main(arguments, prog_name="drqueue", standalone_mode=False, obj=Asked())
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _nobody_reads()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return USAGE
    except click.UsageError as error:
        return _complain(_usage(error), USAGE)
    except click.ClickException as error:
        return _complain(error.format_message(), FAILED)
    except DrQueueError as error:
        return complain_about(error)
    except BaseExceptionGroup as group:
        if interrupted(group):
            return INTERRUPTED
        raise
    except Exception as error:
        from drqueue.settings import SettingsError

        if isinstance(error, SettingsError):
            return _complain(str(error), USAGE)
        raise
    return result if isinstance(result, int) else OK


def _nobody_reads() -> int:
    """Whoever read our output had enough of it (`| head`): that is no failure; nothing is left to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def complain_about(error: DrQueueError) -> int:
    """Say on stderr what went wrong; returns the exit status for it."""
    return _complain(_sentence(error), _status(error))


#: How click's own sentences begin; ours may begin with the name of a file.
_CLICKS = re.compile(r"(No such|Invalid value|Missing|Got unexpected|Option|Error|Command) ")


def _usage(error: click.UsageError) -> str:
    # click puts the choices of an argument on lines of their own.
    text = " ".join(error.format_message().split())
    if not text.endswith("..."):
        text = text.rstrip(".")
    if _CLICKS.match(text):
        text = text[:1].lower() + text[1:]
    if error.ctx is None:
        return text
    if isinstance(error, KindMistake):
        return f"{text} (see `{error.see}`)"
    path = error.ctx.command_path
    if isinstance(error, click.NoSuchOption) and re.fullmatch(r"-[0-9]", error.option_name):
        return f"a negative frame is written after --, as in `{path} ... -- -5`"
    return f"{text} (see `{path} --help`)"


def _sentence(error: DrQueueError) -> str:
    if not isinstance(error, FarmFailed):  # a daemon's last words are lines of their own
        return " ".join(_advised(error).splitlines())
    return str(error)


def _advised(error: DrQueueError) -> str:
    if isinstance(error, MasterUnreachable) and error.nobody:
        return f"{error} ({START_ONE})"
    return str(error)


def _status(error: DrQueueError) -> int:
    if isinstance(error, MasterUnreachable):
        return UNREACHABLE
    if isinstance(error, (NotFound, NotAllowed, NotLoggedIn, WrongCertificate)):
        return NOT_FOUND
    return USAGE if isinstance(error, BadRequest) else FAILED


def _complain(text: str, status: int) -> int:
    from drqueue.client.cli.output import clean

    try:
        print("\n".join(clean(line) for line in f"drqueue: {text}".splitlines()), file=sys.stderr)
    except BrokenPipeError:
        return status
    return status
