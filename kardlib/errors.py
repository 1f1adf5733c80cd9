"""Errors that a user can cause: their base class, those that any stage can meet, and how all are shown.

In a notebook such an error is its sentence in red, as on the command line; `%tb` in the next cell shows the traceback.
"""

import difflib
import re
import sys
from collections.abc import Iterable
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # what moves a terminal's cursor or changes its title


class KardError(Exception):
    """One sentence says what is wrong and what to do; the command line prints it without a traceback.

    It may cite a server, a library or a file: their control characters reach neither terminal nor page.
    """

    def __str__(self) -> str:
        return CONTROL.sub(" ", super().__str__())


class DataError(KardError, ValueError):
    """Data that cannot be used as it is; the message is one sentence that says where, and what to do."""


class StoreError(KardError, RuntimeError):
    """The store cannot be written or was asked for something that it cannot name."""


class TooLargeError(KardError, RuntimeError):
    """The device's memory cannot hold a model; the sentence says what would fit, or what to lower."""


class StoppedError(KardError, RuntimeError):
    """Work was asked to stop; the same call goes on from its last checkpoint, or begins anew where there is none."""


def first_line(error: Exception) -> str:
    """What a library says, without the stack or the table below it; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def suggest(name: str, known: Iterable[str]) -> str:
    """What an error says after a name that is none: "; did you mean ...?" with the nearest, or nothing."""
    return "".join(f"; did you mean {near!r}?" for near in difflib.get_close_matches(name, known, n=1))


def show_in_notebook(shell: Any, kind: type[KardError], error: KardError, trace: Any, tb_offset: int | None) -> None:
    """IPython's handler of these errors: the sentence, and what asks for the traceback."""
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # what %tb shows
    shell._showtraceback(kind, error, [f"\x1b[31m{error}\x1b[0m", "\x1b[2m(%tb shows the traceback)\x1b[0m"])


shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
if shell:
    shell.set_custom_exc((KardError,), show_in_notebook)
