"""`python -m drqueue.slave` is `drqueue-slave`."""

import sys

from drqueue.slave.cli import main

sys.exit(main())
