"""`python -m drqueue` is the command line."""

from drqueue.client.cli.main import main

if __name__ == "__main__":
    main()
