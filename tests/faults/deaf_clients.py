"""Clients that log in and never read: python -m tests.faults.deaf_clients PORT SOURCE SECRET JOB DEAF SILENT

DEAF of them watch everything and ask for the frames of JOB, as fast as they are let, until they are dropped
or have asked ASKED times; SILENT of them say nothing more, as one whose machine lost its power. `ready` is
printed once all of them asked what they could; they stay until stdin ends.
"""

import select
import ssl
import sys
import time

from tests.e2e.attacker import Attacker, hi, packet

#: Each answer is some 200 kB.
ASKED = 400
PATIENCE_S = 60.0


class Deaf:
    """One that asks."""

    def __init__(self, link: ssl.SSLSocket, job: int) -> None:
        self.link = link
        self._job = job
        self._asked = 0
        self._rest = packet(t="watch", rq=0, jobs=True, slaves=True, job=job)
        self.dropped = False
        link.setblocking(False)

    def fileno(self) -> int:
        return self.link.fileno()

    @property
    def over(self) -> bool:
        """Whether it was dropped, or has asked enough."""
        return self.dropped or self._asked >= ASKED

    def ask(self) -> None:
        """As much as goes."""
        try:
            while not self.over:
                if not self._rest:
                    self._asked += 1
                    self._rest = packet(t="listframes", rq=self._asked, job=self._job, limit=1000)
                self._rest = self._rest[self.link.send(self._rest) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError:
            self.dropped = True


def main(port: str, source: str, secret: str, job: str, deaf: str, silent: str) -> None:
    attacker = Attacker(int(port), source)

    def log_in() -> ssl.SSLSocket:
        link = attacker.link()
        link.sendall(hi(secret))
        return link

    links = [log_in() for _ in range(int(silent))]
    living = [Deaf(log_in(), int(job)) for _ in range(int(deaf))]
    deadline = time.monotonic() + PATIENCE_S
    while (asking := [one for one in living if not one.over]) and time.monotonic() < deadline:
        _, ready, _ = select.select([], asking, [], 1.0)
        for one in ready:
            one.ask()
    print("ready", flush=True)
    sys.stdin.read()
    for link in (*links, *(one.link for one in living)):
        link.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
