"""Mutants: what the tests must notice. See `__main__`."""
