"""What the README says is what the figures' data say."""

from pathlib import Path

from kardlib.gallery import BEGIN, END, gallery, refresh_readme

ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_committed_figures_numbers():
    text = (ROOT / "README.md").read_text("utf-8")
    assert gallery(ROOT / "figures") in text, "refresh it with: kard reproduce --publish"


def test_refreshing_changes_the_section_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n", "utf-8")
    refresh_readme(readme, ROOT / "figures")
    text = readme.read_text("utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text and "Figure 4c" in text
