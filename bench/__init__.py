"""Measures this machine and the farm on it: `python -m bench`."""
