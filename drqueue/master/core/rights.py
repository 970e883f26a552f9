"""Whether somebody may do what they ask for: asked at the step in which it would be done.

Rules: rights are those of the account as it stands in that step, not as it stood when the link began; what is
somebody's own goes by who submitted the job, which the master recorded; what an artist names that does not
exist is refused, too, so that nobody can be ahead of a check.
"""

from msgspec import structs

from drqueue.master.core.turn import Turn
from drqueue.master.core.wording import with_article
from drqueue.proto.messages import ChangeJob, FrameVerb, JobVerb, KillAttempts, Request, Submit
from drqueue.proto.roles import LEAST, OWN, Who, reaches

#: The code of what somebody's role, or whose job it is, stands against.
NOT_ALLOWED = "not-allowed"


class Refused(Exception):  # noqa: N818  (an answer on its way)
    """A user's mistake, or what they may not do, raised by what handles requests and answered at once."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def current(turn: Turn, who: Who) -> Who | None:
    """The same, as the register knows them now; None where their account is gone."""
    if not who.account:
        return who
    account = turn.state.register.accounts.get(who.account)
    if account is None:
        return None
    return structs.replace(who, name=account.name, role=account.role)


def refusal(turn: Turn, who: Who, request: Request) -> tuple[str, str] | None:
    """A code and a sentence where this is not to be done for them."""
    known = current(turn, who)
    if known is None:
        return NOT_ALLOWED, "your access was revoked: ask an admin for a new line"
    least = LEAST.get(type(request))
    if least is None:
        return "bad-request", f"a master does not answer {type(request).__name__}"
    if not reaches(known.role, least):
        return NOT_ALLOWED, f"this takes {with_article(least)}, you are {with_article(known.role)}"
    if reaches(known.role, "supervisor"):
        return None
    if type(request) in OWN:
        text = _not_own(turn, known, request)
        if text is not None:
            return NOT_ALLOWED, text
    return _too_high(turn, request)


def _not_own(turn: Turn, who: Who, request: Request) -> str | None:
    match request:
        case JobVerb(job=job) | FrameVerb(job=job) | ChangeJob(job=job):
            found = turn.state.jobs.get(job)
            # That there is none says whoever handles it, in this same step.
            return None if found is None else _of_another(job, found.submitter, who)
        case KillAttempts(keys=keys, job=job):
            numbers = dict.fromkeys(key.job for key in keys)
            if job is not None:
                numbers[job] = None
            if not numbers:
                return "say which frames to kill, or of which job: all takes a supervisor"
            for number in numbers:
                known = turn.state.jobs.get(number)
                text = (
                    f"there is no job {number} of yours"
                    if known is None
                    else _of_another(number, known.submitter, who)
                )
                if text is not None:
                    return text
            return None
        case _:
            return f"{type(request).__name__} takes a supervisor"


def _of_another(job: int, submitter: str, who: Who) -> str | None:
    if not submitter:
        return f"nobody knows who submitted job {job}: only a supervisor may do that"
    if submitter != who.name:
        return f"job {job} was submitted by {submitter}: only they or a supervisor may do that"
    return None


def _too_high(turn: Turn, request: Request) -> tuple[str, str] | None:
    match request:
        case Submit(spec=spec):
            priority = spec.priority
        case ChangeJob(change=change) if isinstance(change.priority, int):
            priority = change.priority
        case _:
            return None
    most = turn.policy.artist_max_priority
    if priority <= most:
        return None
    return NOT_ALLOWED, f"priority {priority} takes a supervisor: an artist may go up to {most}"
