"""A slave daemon reduced to its supervisor: STATE_DIR, then one JSON object per launch; events go to stdout.

It is there to be killed, so that its frames can be found again.
"""

import json
import sys

import trio

from drqueue.proto.ids import AttemptKey
from drqueue.slave.core.processes import Launch, ProcessEvent
from drqueue.slave.supervisor import Supervisor


def tell(event: ProcessEvent) -> None:
    """Print one event."""
    print(type(event).__name__, event.key, getattr(event, "pid", 0), getattr(event, "birth", 0), flush=True)


async def main() -> None:
    """Launch what the arguments say and wait to be killed."""
    supervisor = Supervisor(sys.argv[1], tell, linger_s=30)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run, {})
        for text in sys.argv[2:]:
            order = json.loads(text)
            supervisor.launch(
                Launch(**{**order, "key": AttemptKey(*order["key"]), "argv": tuple(order["argv"])})
            )
        supervisor.flush()
        await trio.sleep_forever()


trio.run(main)
