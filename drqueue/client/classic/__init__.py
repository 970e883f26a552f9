"""The original's eight command line tools, over the binding: its flags, its words, its exit statuses.

`TOOLS` names them with a line each, for whoever lists them; a tool's module is imported when it is run.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Final

TOOLS: Final = {
    "sendjob": "Send the job that a file describes.",
    "cjob": "Control a job: stop, hard stop, continue, delete, status.",
    "ctask": "Control a frame of a job: finish it, requeue it.",
    "requeue": "Requeue a frame of a job.",
    "jobinfo": "List or count jobs, or show one.",
    "jobfinfo": "Show a frame's status, or how often it was requeued.",
    "compinfo": "List or count computers, or show one.",
    "blockhost": "Block computers for a job, unblock them, list them.",
}

_HOME_OF: Final = {
    "sendjob": "sendjob",
    "cjob": "control",
    "ctask": "control",
    "requeue": "control",
    "jobinfo": "info",
    "jobfinfo": "info",
    "compinfo": "info",
    "blockhost": "blockhost",
}


def run(tool: str, arguments: Sequence[str]) -> int:
    """Run one of `TOOLS` on the words behind its name; returns its exit status, 0 or 1."""
    from drqueue.client.classic.front import Tool, call

    found = getattr(import_module(f"drqueue.client.classic.{_HOME_OF[tool]}"), tool.upper())
    assert isinstance(found, Tool)
    return call(found, TOOLS[tool], arguments)
