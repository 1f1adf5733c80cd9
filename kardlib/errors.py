"""The one base class of the errors that a user can cause."""


class KardError(Exception):
    """Says in one sentence what is wrong and what to do; the command line prints it without a traceback."""
