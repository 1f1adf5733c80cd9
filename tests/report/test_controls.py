"""Controls: a menu or a slider where somebody watches, one picture where nobody does."""

import pytest

from kardlib.report.controls import explore, is_watched


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, False),
        ({"JPY_SESSION_NAME": "tour.ipynb"}, True),
        ({"VSCODE_PID": "1"}, True),
        ({"COLAB_RELEASE_TAG": "release"}, True),
        ({"JPY_SESSION_NAME": "", "VSCODE_PID": "1"}, False),  # reproduce, started in VS Code
    ],
)
def test_who_watches(environment, watched, monkeypatch):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_watched() == watched


CONTROLS = {"word": [("First", "a"), ("Second", "b")], "whole": (1, 10, 3), "log10_share": (-2, 0.5, -1, 0.05)}


def test_where_nobody_watches_it_is_shown_once_at_rest(monkeypatch):
    monkeypatch.setattr("kardlib.report.controls.is_watched", lambda: False)
    shown = []
    explore(lambda **values: shown.append(values), **CONTROLS)
    assert shown == [{"word": "a", "whole": 3, "log10_share": -1}]


def test_a_sign_says_whether_it_is_at_work_also_after_a_mistake(monkeypatch):
    monkeypatch.setattr("kardlib.report.controls.is_watched", lambda: True)
    displayed: list = []
    shown: list = []
    monkeypatch.setattr("kardlib.report.controls.display", lambda *things: displayed.extend(things))

    def show(word, whole, log10_share):
        shown.append((word, whole, log10_share, sign.value if displayed else ""))
        assert whole != 4

    explore(show, **CONTROLS)
    word, whole, share, sign, _ = displayed[1].children
    assert [w.description for w in (word, whole, share)] == ["word", "whole", "log10 share"]
    assert (whole.step, share.step, share.max) == (1, 0.05, 0.5)
    assert not whole.continuous_update, "it is drawn when a slider is let go"
    word.value = "b"
    whole.value = 4
    assert [values[:3] for values in shown] == [("a", 3, -1), ("b", 3, -1), ("b", 4, -1)]
    assert all("Working" in values[3] for values in shown[1:]) and "Done" in sign.value
