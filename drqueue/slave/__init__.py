"""The slave daemon: measures its machine, runs what the master asks, and never loses a result."""
