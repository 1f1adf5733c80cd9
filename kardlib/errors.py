"""The one base class of the errors that a user can cause, and the one error that any stage can meet."""


class KardError(Exception):
    """Says in one sentence what is wrong and what to do; the command line prints it without a traceback."""


class TooLargeError(KardError, RuntimeError):
    """What the device's memory cannot hold; the sentence says what would fit, or what to lower."""
