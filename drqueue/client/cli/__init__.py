"""The command line `drqueue`."""
