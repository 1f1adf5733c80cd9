"""Every figure has one caption, which its alt texts are too."""

import pytest

from kardlib.report.captions import find_caption, find_drawn, read_captions
from kardlib.report.drawings import kard
from kardlib.report.papers import DRAWN, DRAWN_WITH_SETTINGS
from tests.folders import ROOT


def test_every_figure_has_a_caption_and_every_caption_a_figure():
    shown = {name.removesuffix("_full") for name in read_captions() if not hasattr(kard, name)}
    assert shown == {*DRAWN, *DRAWN_WITH_SETTINGS}
    for path in (ROOT / "figures").glob("*.png"):
        assert find_caption(path.stem).shows in {caption.shows for caption in read_captions().values()}, path


@pytest.mark.parametrize("name", read_captions())
def test_a_caption_says_more_than_a_name_and_no_number_that_may_change(name):
    shows = read_captions()[name].shows
    assert len(shows.split()) > 9 and shows.endswith(".") and "\n" not in shows


def test_the_longest_name_counts_and_a_real_dataset_is_named():
    assert find_caption("17_frontier_full") == read_captions()["17_frontier_full"] != read_captions()["17_frontier"]
    assert find_caption("03_hits_obqa").beside == "KARD, Figure 4c, on OpenbookQA"
    assert find_caption("03_hits_obqa").shows == read_captions()["03_hits"].shows
    assert (find_caption("99_my_own").beside, find_caption("99_my_own").shows) == ("ours", "99 my own")


def test_a_cell_names_what_it_draws_or_a_cell_before_it_does():
    caption = read_captions()["17_frontier"]
    assert find_drawn(["save_figure(figure, name, table, folder, made)", 'name = "17_frontier" + suffix']) == caption
    assert find_drawn(["figure = plot_similarities(maps)"]) == read_captions()["plot_similarities"]
    assert find_drawn(["plt.plot(x)"]) is None
