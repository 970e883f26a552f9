"""`cjob`, `ctask` and `requeue`: what is done to a job or a frame."""

from typing import Final

from drqueue.client.classic.front import Given, Refused, Tool, say

_CJOB_USAGE: Final = """\
Usage: cjob OPERATION -j ID

  -s     stop the job: running frames end normally
  -k     hard stop the job: running frames are killed
  -d     delete the job
  -c     continue the job
  -t     print the job's status: Waiting, Active, Stopped or Finished
  -j ID  the job
  -v     print the version
  -h     print this help"""

_CTASK_USAGE: Final = """\
Usage: ctask OPERATION -j ID -f FRAME

  -d        set the frame finished
  -r        requeue the frame
  -e        set the frame to error (not yet implemented)
  -j ID     the job
  -f FRAME  the frame's number
  -v        print the version
  -h        print this help"""

_REQUEUE_USAGE: Final = """\
Usage: requeue -f FRAME -j ID

  -f FRAME  the frame's number
  -j ID     the job
  -v        print the version
  -h        print this help"""


def _cjob(given: Given) -> None:
    operation = given.one_of("skdct")
    if not operation:
        raise Refused("one of -s, -k, -d, -c and -t is missing (see cjob -h)")
    ijob = given.number("j", "the job's id")

    from drqueue.client import binding
    from drqueue.client.classic.asking import tell, the_job

    otherwise = f"the master did not do that to job {ijob}"
    match operation:
        case "s":
            say(f"Stopping job: {ijob}")
            tell(binding.request_job_stop, ijob, otherwise=otherwise)
        case "k":
            say(f"Hard stopping job: {ijob}")
            tell(binding.request_job_hstop, ijob, otherwise=otherwise)
        case "d":
            say(f"Deleting job: {ijob}")
            tell(binding.request_job_delete, ijob, otherwise=otherwise)
        case "c":
            say(f"Continue job: {ijob}")
            tell(binding.request_job_continue, ijob, otherwise=otherwise)
        case _:
            say(binding.job_status_string(the_job(ijob).status))


def _ctask(given: Given) -> None:
    operation = given.one_of("dre")
    if not operation:
        raise Refused("one of -d, -r and -e is missing (see ctask -h)")
    ijob, frame = given.number("j", "the job's id"), given.frame()
    if operation == "e":
        raise Refused("setting a frame to error is not yet implemented")

    from drqueue.client import binding
    from drqueue.client.classic.asking import tell

    otherwise = f"the master did not do that to frame {frame} of job {ijob}"
    if operation == "d":
        say(f"Setting frame finished: {frame},{ijob}")
        tell(binding.request_job_frame_finish, ijob, frame, otherwise=otherwise)
        say("Frame set finished successfully")
    else:
        say(f"Requeueing frame: {frame},{ijob}")
        tell(binding.request_job_frame_waiting, ijob, frame, otherwise=otherwise)
        say("Frame requeued successfully")


def _requeue(given: Given) -> None:
    ijob, frame = given.number("j", "the job's id"), given.frame()

    from drqueue.client import binding
    from drqueue.client.classic.asking import tell

    otherwise = f"the master did not requeue frame {frame} of job {ijob}"
    tell(binding.request_job_frame_waiting, ijob, frame, otherwise=otherwise)
    say("Frame requeued successfully")


CJOB: Final = Tool("cjob", _CJOB_USAGE, "skdctj:", _cjob)
CTASK: Final = Tool("ctask", _CTASK_USAGE, "drej:f:", _ctask)
REQUEUE: Final = Tool("requeue", _REQUEUE_USAGE, "f:j:", _requeue)
