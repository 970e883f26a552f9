"""`python -m drqueue.master`."""

from drqueue.master.cli import main

main()
