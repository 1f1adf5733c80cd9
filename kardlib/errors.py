"""The base class of every error that a user can cause, and the one such error that any stage can meet."""


class KardError(Exception):
    """One sentence says what is wrong and what to do; the command line prints it without a traceback."""


class TooLargeError(KardError, RuntimeError):
    """The device's memory cannot hold a model; the sentence says what would fit, or what to lower."""
