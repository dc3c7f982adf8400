"""Errors that the benchmarks cannot go on with."""


class Unusable(Exception):
    """Raised when a figure that is needed is not there; the sentence says what makes it."""
