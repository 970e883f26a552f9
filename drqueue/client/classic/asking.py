"""How the tools ask the farm, over the binding, and what they say where it does not do what was asked."""

from collections.abc import Callable
from typing import Final, TypeVar

from drqueue.client import binding
from drqueue.client.binding.constants import DRE_ANSWERNOTRIGHT, DRE_NOERROR, DRE_NOTREGISTERED, error_text
from drqueue.client.binding.session import last_error
from drqueue.client.classic.front import Refused

T = TypeVar("T")

#: Texts of the original's that say nothing where more is known: what is behind them is a sentence of its own.
_PLAIN: Final = tuple(f"{error_text(code)}: " for code in (DRE_NOTREGISTERED, DRE_ANSWERNOTRIGHT))


def ask(question: Callable[..., T], *given: object) -> T:
    """What a function of the binding answers; Refused, with the cause, where it raises IOError."""
    try:
        return question(*given, binding.CLIENT)
    except OSError as error:
        raise Refused(_sentence(str(error))) from None


def tell(request: Callable[..., int], *given: object, otherwise: str) -> None:
    """Call a plain function of the binding; Refused, with the cause, where it returns 0.

    `otherwise` is said where the binding knows no cause.
    """
    if not request(*given, binding.CLIENT):
        text = last_error()
        raise Refused(otherwise if text == error_text(DRE_NOERROR) else _sentence(text))


def the_job(ijob: int) -> binding.job:
    """A job's record; Refused where there is none."""
    job = binding.job()
    tell(binding.request_job_xfer, ijob, job, otherwise=f"there is no job {ijob}")
    return job


def the_computer(icomp: int) -> binding.computer:
    """A computer's record; Refused where there is none."""
    computer = binding.computer()
    tell(binding.request_comp_xfer, icomp, computer, otherwise=f"there is no computer {icomp}")
    return computer


def the_frame(ijob: int, frame: int) -> binding.frame_info:
    """A frame's record; Refused where there is none."""
    info = binding.frame_info()
    tell(binding.request_job_frame_info, ijob, frame, info, otherwise=f"job {ijob} has no frame {frame}")
    return info


def _sentence(text: str) -> str:
    for plain in _PLAIN:
        text = text.removeprefix(plain)
    return text
