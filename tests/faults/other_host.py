"""Run a slave's daemon as if on another machine: python other_host.py ROOT MODULE [OPTIONS].

What a machine is known by (its id, its network cards, its boot) is looked for below ROOT. A cloned disk can
be started this way without a second machine.
"""

import runpy
import sys

from drqueue.slave import identity

for look in (identity.this_machine, identity.boot_id):
    look.__defaults__ = (sys.argv[1],)

sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
