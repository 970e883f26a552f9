"""`blockhost`: the computers that a job's frames do not go to."""

from typing import Final

from drqueue.client.classic.front import Given, Refused, Tool, say

_USAGE: Final = """\
Usage: blockhost -a COMPID | -d POS | -l -j ID

  -a COMPID  block a computer for the job, by the computer's id
  -d POS     unblock the computer at this position of the job's list
  -l         list the computers blocked for the job: position and name
  -j ID      the job
  -v         print the version
  -h         print this help"""


def _blockhost(given: Given) -> None:
    operation = given.one_of("adl")
    if not operation:
        raise Refused("one of -a, -d and -l is missing (see blockhost -h)")
    ijob = given.number("j", "the job's id")
    if operation == "a":
        _add(ijob, given.number("a", "the computer's id"))
    elif operation == "d":
        _delete(ijob, given.number("d", "the position"))
    else:
        for position, name in enumerate(_blocked(ijob)):
            say(f"{position}\t{name}")


def _add(ijob: int, icomp: int) -> None:
    from drqueue.client import binding
    from drqueue.client.classic.asking import tell

    otherwise = f"the master did not block computer {icomp} for job {ijob}"
    tell(binding.request_job_add_blocked_host, ijob, icomp, otherwise=otherwise)
    say("Host blocked successfully")


def _delete(ijob: int, position: int) -> None:
    from drqueue.client import binding
    from drqueue.client.classic.asking import tell

    otherwise = f"job {ijob} has no position {position} in its list of blocked computers"
    tell(binding.request_job_delete_blocked_host, ijob, position, otherwise=otherwise)
    say("Host unblocked successfully")


def _blocked(ijob: int) -> list[str]:
    """The names of the computers blocked for a job, in the list's order."""
    from drqueue.client import binding
    from drqueue.client.classic.asking import ask

    return [host.name for host in ask(binding.request_job_list_blocked_host, ijob)]


BLOCKHOST: Final = Tool("blockhost", _USAGE, "a:d:lj:", _blockhost)
