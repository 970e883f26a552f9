"""DrQueue: a render farm of one master, many slaves, and clients that talk to both."""

__version__ = "1.0.0.dev0"
