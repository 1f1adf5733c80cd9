"""What every error holds to, whatever it cites."""

import pickle

from kardlib.data.records import DataError
from kardlib.errors import KardError, TooLargeError


def test_control_characters_that_an_error_cites_reach_nobody() -> None:
    for kind in (KardError, TooLargeError, DataError):
        error = kind("the server said \x1b[2J\x9b2J\x1b]0;owned\x07\r\nand é")
        assert str(error) == str(pickle.loads(pickle.dumps(error))) == "the server said  [2J 2J ]0;owned and é"
