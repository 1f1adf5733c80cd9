"""The base class of every error that a user can cause, and those such errors that any stage can meet."""

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # what moves a terminal's cursor or changes its title


class KardError(Exception):
    """One sentence says what is wrong and what to do; the command line prints it without a traceback.

    It may cite a server, a library or a file: their control characters reach neither terminal nor page.
    """

    def __str__(self) -> str:
        return CONTROL.sub(" ", super().__str__())


class TooLargeError(KardError, RuntimeError):
    """The device's memory cannot hold a model; the sentence says what would fit, or what to lower."""


class StoppedError(KardError, RuntimeError):
    """Work was asked to stop; the same call goes on from its last checkpoint, or begins anew where there is none."""
