"""`jobinfo`, `jobfinfo` and `compinfo`: what is known of jobs, frames and computers."""

from typing import Final

from drqueue.client.classic.front import Given, Refused, Tool, say

_JOBINFO_USAGE: Final = """\
Usage: jobinfo -l | -n | -j ID

  -l     list the jobs: their ids and names
  -n     print how many jobs there are
  -j ID  print a job's id, name and environment variables
  -v     print the version
  -h     print this help"""

_JOBFINFO_USAGE: Final = """\
Usage: jobfinfo -r | -s -f FRAME -j ID

  -r        print how often the frame was requeued
  -s        print the frame's status: Waiting, Running, Error or Finished
  -f FRAME  the frame's number
  -j ID     the job
  -v        print the version
  -h        print this help"""

_COMPINFO_USAGE: Final = """\
Usage: compinfo -l | -n | -d -c ID

  -l     list the computers: their ids and names
  -n     print how many computers there are
  -d     print the id and name of one computer
  -c ID  the computer for -d
  -v     print the version
  -h     print this help"""


def _jobinfo(given: Given) -> None:
    operation = given.one_of("lnj")
    if not operation:
        raise Refused("one of -l, -n and -j is missing (see jobinfo -h)")
    ijob = given.number("j", "the job's id") if operation == "j" else 0

    from drqueue.client import binding
    from drqueue.client.classic.asking import ask, tell, the_job

    if operation == "j":
        job = the_job(ijob)
        say(f"ID: {job.id} Name: {job.name}")
        variables = binding.envvars()
        tell(binding.request_job_envvars, ijob, variables, otherwise=f"there is no job {ijob}")
        say("Environment variables")
        for variable in variables.variables.ptr:
            say(f"{variable.name}={variable.value}")
        return
    jobs = ask(binding.request_job_list)
    if operation == "n":
        say(str(len(jobs)))
        return
    for job in jobs:
        say(f"ID: {job.id} Name: {job.name}")


def _jobfinfo(given: Given) -> None:
    operation = given.one_of("rs")
    frame, ijob = given.frame(), given.number("j", "the job's id")
    if not operation:
        say("OP_NONE")
        return

    from drqueue.client import binding
    from drqueue.client.classic.asking import the_frame

    info = the_frame(ijob, frame)
    if operation == "r":
        say(str(info.requeued))
    else:
        say(binding.job_frame_status_string(info.status))


def _compinfo(given: Given) -> None:
    operation = given.one_of("lnd")
    if not operation:
        raise Refused("one of -l, -n and -d is missing (see compinfo -h)")
    icomp = given.number("c", "the computer's id") if operation == "d" else 0

    from drqueue.client import binding
    from drqueue.client.classic.asking import ask, the_computer

    computers = [the_computer(icomp)] if operation == "d" else ask(binding.request_computer_list)
    if operation == "n":
        say(str(len(computers)))
        return
    for computer in computers:
        say(f"ID: {computer.hwinfo.id} Name: {computer.hwinfo.name}")


JOBINFO: Final = Tool("jobinfo", _JOBINFO_USAGE, "lnj:", _jobinfo)
JOBFINFO: Final = Tool("jobfinfo", _JOBFINFO_USAGE, "rsf:j:", _jobfinfo)
COMPINFO: Final = Tool("compinfo", _COMPINFO_USAGE, "lndc:", _compinfo)
