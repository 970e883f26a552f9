"""Does what the slave's core wants done: the one place where effects meet the world.

Rules: sync, nothing here waits; what may take long (looking at outputs) goes to a thread. While the
journal is not whole (the disk is full) only what ends processes goes through: everything else waits in
order, so that nobody is told of what is not kept.
"""

import os
from collections import deque
from collections.abc import Callable, Sized
from typing import Any

import trio

from drqueue.engine import Inbox
from drqueue.proto.model import RunOrder
from drqueue.settings import SlaveSettings
from drqueue.slave import logs, outputs
from drqueue.slave.core.effects import (
    Alive,
    AllEnded,
    Answer,
    Effect,
    KeepLog,
    Prepare,
    RemoveScratch,
    SayHello,
    Send,
    Start,
    Unlink,
    Verify,
)
from drqueue.slave.core.events import Event, OutputsSeen, Verified
from drqueue.slave.core.processes import ForgetProcess, Launch, LaunchFailed, SignalTree
from drqueue.slave.core.records import Before
from drqueue.slave.environment import (
    BadOrderError,
    Node,
    command,
    members,
    output_fields,
    working_directory,
)
from drqueue.slave.link import Link
from drqueue.slave.run_as import RunAs, RunAsError, User
from drqueue.slave.scratch import Scratch
from drqueue.slave.supervisor import Supervisor

BAD_ORDER = "bad-order"
#: What tells nobody anything.
_ALWAYS = (SignalTree, Alive, AllEnded)
#: Threads that look at outputs; a shared disk that hangs holds no more than these.
LOOKING_MAX = 8
#: Files whose former state is kept; of an attempt that declares more, the rest must only be there.
BEFORE_MAX = 2000


def group_limits(settings: SlaveSettings, order: RunOrder) -> tuple[int, int] | None:
    """`Launch.group` of an order."""
    if settings.cgroups == "off":
        return None
    return settings.pids_most, order.memory_mb << 20 if settings.memory_limit else 0


class Performer:
    """Performs effects.

    `node` is asked anew for each start, with the frame's user (None: the slave's own): what the master calls
    this slave may change. `group` says what `Launch.group` is. `unwritten` is what the journal lacks.
    """

    def __init__(
        self,
        *,
        state_dir: str,
        node: Callable[[User | None], Node],
        run_as: RunAs,
        scratch: Scratch,
        umask: int,
        log_cap: int,
        group: Callable[[RunOrder], tuple[int, int] | None],
        inbox: Inbox[Event],
        link: Link,
        supervisor: Supervisor,
        nursery: trio.Nursery,
        unwritten: Sized,
        keep_log: Callable[[KeepLog], None],
        alive: Callable[[], None],
        all_ended: Callable[[], None],
        started: Callable[[], None],
        copy_log: Callable[[RunOrder], None],
        reuse_logs: bool,
    ) -> None:
        self._state_dir = state_dir
        self._node = node
        self._run_as = run_as
        self._umask = umask
        self._log_cap = log_cap
        self._group = group
        self._inbox = inbox
        self._link = link
        self._supervisor = supervisor
        self._nursery = nursery
        self._unwritten = unwritten
        self._started = started
        self._copy_log = copy_log
        self._reuse_logs = reuse_logs
        self._held_back: deque[Effect] = deque()
        #: The folder of the last job's logs is there already.
        self._log_job, self._log_folder = -1, ""
        self._looking = trio.CapacityLimiter(LOOKING_MAX)
        self._performers: dict[type[Any], Callable[[Any], None]] = {
            Start: self._start,
            Send: lambda effect: link.send(effect.link, effect.message),
            ForgetProcess: lambda effect: supervisor.forget(effect.key),
            SignalTree: lambda effect: supervisor.signal_tree(effect.key, effect.kill),
            KeepLog: keep_log,
            Prepare: lambda effect: nursery.start_soon(self._prepare, effect.order),
            Verify: lambda effect: nursery.start_soon(self._verify, effect.order, effect.before),
            SayHello: lambda effect: link.say_hello(effect.link, effect.held),
            Unlink: lambda effect: link.drop(effect.link, effect.text),
            RemoveScratch: lambda effect: nursery.start_soon(scratch.remove, effect.key),
            Answer: lambda effect: effect.asker(effect.message),
            Alive: lambda effect: alive(),
            AllEnded: lambda effect: all_ended(),
        }

    def perform(self, effect: Effect) -> None:
        """Do one thing, or keep it until the journal is whole."""
        if (self._held_back or self._unwritten) and not isinstance(effect, _ALWAYS):
            self._held_back.append(effect)
        else:
            self._performers[type(effect)](effect)

    def flush(self) -> None:
        """After a batch: one write to each peer."""
        if self._held_back and not self._unwritten:
            held_back, self._held_back = self._held_back, deque()
            for effect in held_back:
                self._performers[type(effect)](effect)
        self._supervisor.flush()
        self._link.flush()

    # -- starting --------------------------------------------------------------------------------

    def _start(self, effect: Start) -> None:
        order = effect.order
        key = order.key
        try:
            user = self._run_as.user(order.submitter)
            argv, layer_env, frame_env, cwd, scratch = command(order, self._node(user))
            if key.job != self._log_job:
                path = logs.log_path(self._state_dir, key, create=True)
                self._log_job, self._log_folder = key.job, os.path.dirname(path)
            else:
                path = f"{self._log_folder}/{logs.log_name(key)}"
        except BadOrderError as error:
            self._inbox.put(LaunchFailed(key, BAD_ORDER, str(error)))
            return
        except RunAsError as error:
            self._inbox.put(LaunchFailed(key, "spawn-failed", str(error)))
            return
        except OSError as error:
            self._inbox.put(LaunchFailed(key, "spawn-failed", f"no room for its log: {error.strerror}"))
            return
        self._copy_log(order)
        self._supervisor.launch(
            Launch(
                key=key,
                argv=argv,
                env=frame_env,
                base_env=layer_env,
                cwd=cwd,
                log_path=path,
                log_cap=self._log_cap,
                umask=self._umask,
                scratch=scratch,
                user=None if user is None else user.ids,
                reuse_log=self._reuse_logs,
                group=self._group(order),
            )
        )
        self._started()

    # -- outputs ---------------------------------------------------------------------------------

    def _output_paths(self, order: RunOrder) -> list[str]:
        cwd = working_directory(order, self._node(self._run_as.user(order.submitter)))
        fields = output_fields(order)
        paths: dict[str, None] = {}
        for pattern in order.outputs:
            paths.update(dict.fromkeys(outputs.expand_output(pattern, members(order), fields, cwd)))
        return list(paths)

    def _look_before(self, order: RunOrder) -> Before:
        seen = outputs.snapshot(self._output_paths(order)[:BEFORE_MAX])
        return {path: stamp for path, stamp in seen.items() if stamp is not None}

    def _look_after(self, order: RunOrder, before: Before) -> str:
        return outputs.verify(self._output_paths(order), before) or ""

    async def _prepare(self, order: RunOrder) -> None:
        try:
            before = await trio.to_thread.run_sync(
                self._look_before, order, abandon_on_cancel=True, limiter=self._looking
            )
        except (BadOrderError, RunAsError, ValueError) as error:
            self._inbox.put(LaunchFailed(order.key, BAD_ORDER, str(error)))
        else:
            self._inbox.put(OutputsSeen(order.key, before))

    async def _verify(self, order: RunOrder, before: Before) -> None:
        try:
            problem = await trio.to_thread.run_sync(
                self._look_after, order, before, abandon_on_cancel=True, limiter=self._looking
            )
        except (BadOrderError, RunAsError, ValueError) as error:
            problem = str(error)
        self._inbox.put(Verified(order.key, problem))
