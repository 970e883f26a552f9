"""The table of calls, walked over the master's core: what each call asks for, and what comes of that.

The binding runs as it is; only the link to a master is replaced by the core itself. So every row of the table
is walked with the very requests that the call sends, and with no process.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import trio
from msgspec import UNSET, structs

import drqueue
from drqueue.client.async_client import AsyncClient
from drqueue.client.binding import session
from drqueue.client.errors import refused
from drqueue.master.core.on_client import READS
from drqueue.proto.ids import AttemptKey
from drqueue.proto.messages import Refusal, Request
from drqueue.proto.model import Exit, LimitsChange, SlaveLimits
from drqueue.proto.link_messages import Limits
from drqueue.master.core.events import SlaveSaid
from tests.binding.verbs import STATES, State, Verb, load
from tests.binding.walk import walk
from tests.builders import CoreFarm

T = TypeVar("T")
VERBS = load()
