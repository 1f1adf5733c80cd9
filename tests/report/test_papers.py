"""Tables, figures and comparisons from the figures' data alone, as the command line prints them."""

import re
import shutil
from math import inf
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from PIL import Image

import kardlib
from kardlib import REPOSITORY, registry
from kardlib.__main__ import BIBTEX, main
from kardlib.report import papers
from kardlib.report.drawings import accuracy, style
from kardlib.report.drawings.accuracy import plot_main
from kardlib.report.figures import save_figure
from kardlib.report.gallery import GLUE
from kardlib.report.papers import (
    DRAWN,
    DRAWN_WITH_SETTINGS,
    FigureError,
    compare,
    draw_again,
    escape,
    find_data,
    lay_out,
    paper_tables,
    read_drawn,
)
from kardlib.report.rows import long_form
from tests.tables import accuracy_row, main_table

FIGURES = REPOSITORY / "figures"
ROW = "method,student,metric,value,low,high\n"


def cell(table: pd.DataFrame, method: str, column: str) -> str:
    return table.loc[table["method"] == method, column].item()


def test_a_table_has_methods_below_each_other_and_students_side_by_side():
    (title, table), *_ = paper_tables(FIGURES / "04_strata.csv")
    assert title == "04_strata: accuracy never (%)"
    assert list(table) == ["method", "t5-nano-small", "t5-nano-base", "t5-nano-large"]
    source = read_drawn(FIGURES / "04_strata.csv").query("method == 'fine_tuning' and metric == 'accuracy_never'")
    row = source[source.seed.isna() & (source.student == "t5-nano-base") & (source.over == "")].iloc[0]
    expected = f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert cell(table, "Fine-tuning (FT)", "t5-nano-base") == expected
    chance = set(table[table["method"] == "Chance"].iloc[0, 1:])
    assert len(chance) == 1 and "" not in chance  # the same for every student


def test_where_a_knob_varies_its_values_stand_side_by_side():
    (_, table), *_ = paper_tables(FIGURES / "05_dataset_size.csv")
    assert list(table) == ["method", "share = 0.01", "share = 0.05", "share = 0.25", "share = 1"]
    (_, gains), *_ = paper_tables(FIGURES / "05_dataset_size.csv", gain=True)
    number, share = r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", r"\d+% unread"
    assert all(re.fullmatch(f"{number}(, {share})?|{share}", gain) for gain in gains.iloc[:, 1])
    assert re.match(number, cell(gains, "KARD (BM25) at share = 1 over Fine-tuning (FT)", gains.columns[1]))
    assert "KARD (BM25) at share = 0.25 over Fine-tuning (FT) at share = 1" in set(gains["method"])


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.csv")), ids=lambda path: path.stem)
def test_every_published_figure_has_its_tables_and_each_number_stands_in_one(path):
    table = read_drawn(path)
    for gain, rows in ((False, table[table.over == ""]), (True, table[table.over != ""])):
        rows = rows[rows["seed"].isna()]
        cells = dict(paper_tables(path, gain))
        assert len(cells) == rows["metric"].nunique()
        filled = sum((table.drop(columns="method") != "").to_numpy().sum() for table in cells.values())
        assert filled >= len(rows)


def test_what_could_not_be_read_is_said_and_no_zero_stands_for_it(tmp_path):
    rows = [accuracy_row(student="base", value=0.0, low=0.0, high=0.0, unread=1.0), accuracy_row(student="large")]
    rows += [accuracy_row(student="large", over="few_shot", unread=0.9, value=-0.2, low=-0.3, high=-0.1)]
    long_form([*rows, accuracy_row(student="small", unread=0.1)]).to_csv(tmp_path / "03_hits.csv", index=False)
    for gain, expected in ((False, ["100% unread", "50.0", "50.0, 10% unread"]), (True, ["90% unread"])):
        ((_, table),) = paper_tables(tmp_path / "03_hits.csv", gain)
        assert table.iloc[0, 1:].tolist() == expected
    long_form([accuracy_row(student="base", value=0.4)]).to_csv(tmp_path / "then.csv", index=False)
    _, differ, _ = compare(tmp_path / "03_hits.csv", tmp_path / "then.csv")
    assert differ.iloc[0, -3:].tolist() == ["100% unread", "40.0", "100% unread"]


def test_an_interval_that_goes_beyond_what_was_run_has_an_open_end(tmp_path):
    crossing = accuracy_row(metric="crossing", value=110.9, low=85.6, high=inf)
    long_form([crossing]).to_csv(tmp_path / "17_frontier.csv", index=False)
    ((_, table),) = paper_tables(tmp_path / "17_frontier.csv")
    assert table.iloc[0, -1] == "110.9 [85.6, …]"
    long_form([crossing | {"value": inf}]).to_csv(tmp_path / "beyond.csv", index=False)
    assert dict(paper_tables(tmp_path / "beyond.csv")).popitem()[1].iloc[0, -1] == "… [85.6, …]"
    long_form([crossing | {"value": 99.0}]).to_csv(tmp_path / "then.csv", index=False)
    _, differ, _ = compare(tmp_path / "17_frontier.csv", tmp_path / "then.csv")
    assert differ.iloc[0, -3:].tolist() == ["110.9 [85.6, …]", "99 [85.6, …]", "-11.9"]


def test_what_is_made_of_fractions_is_in_per_cent_and_a_large_number_has_all_its_digits(tmp_path, capsys):
    rows = [accuracy_row(metric="latency_overhead", value=0.0123, knob="entries", x=1e6)]
    rows += [accuracy_row(metric="bytes", value=1234567.0), accuracy_row(metric="loss", value=0.5)]
    grown = accuracy_row(metric="accuracy_gain_growth", over="few_shot", value=1.25, low=1.0, high=1.5)
    long_form([*rows, grown]).to_csv(tmp_path / "18_latency.csv", index=False)
    tables = dict(paper_tables(tmp_path / "18_latency.csv"))
    assert [*tables] == [f"18_latency: {said}" for said in ("latency overhead (%)", "bytes", "loss (nats)")]
    assert [table.iloc[0, -1] for table in tables.values()] == ["1.2", "1,234,567", "0.5"]
    assert "entries = 1,000,000" in tables["18_latency: latency overhead (%)"]
    ((title, gains),) = paper_tables(tmp_path / "18_latency.csv", gain=True)
    assert title.endswith("accuracy gain growth (points)") and gains.iloc[0, -1] == "+125.0 [+100.0, +150.0]"
    assert main(["table", "13_where"]) == 2
    assert capsys.readouterr().err == "kard: 13_where holds no values, only gains: --gains prints them\n"


@pytest.mark.parametrize("form, begins", [("markdown", "| method"), ("latex", "% 05_dat"), ("csv", "method,share")])
def test_the_command_prints_each_format(form, begins, capsys):
    assert main(["table", "05", f"--{form}"]) == 0
    out = capsys.readouterr().out
    assert begins in out and ("Chance" in out) and (form != "latex" or r"\begin{tabular}" in out)


def test_a_figure_that_is_not_there_names_the_near_one(capsys):
    with pytest.raises(FigureError, match=r"no figure '04_man' in .*; did you mean '04_main'\? \(there are 00_"):
        find_data("04_man", FIGURES)
    assert main(["table", "77"]) == 2
    assert capsys.readouterr().err.startswith("kard: there is no figure '77' in figures (there are 00_tour, ")


def test_a_figure_is_drawn_again_from_its_data_as_it_was(tmp_path):
    made = {"settings": {"student": {"lr": 0.5}}}
    save_figure(plot_main(main_table()), "04_main", main_table(), tmp_path / "run", made)
    before = tmp_path / "run" / "04_main.csv"
    again = draw_again(before, tmp_path / "again")
    assert again == tmp_path / "again" / "04_main.pdf" and again.is_file()
    assert again.with_suffix(".csv").read_bytes() == before.read_bytes()
    pictures = [Image.open(path.with_suffix(".png")) for path in (before, again)]
    assert pictures[0].info["Provenance"] == pictures[1].info["Provenance"]
    narrow = draw_again(before, tmp_path / "narrow", "one-column").with_suffix(".png")
    assert Image.open(narrow).width == 5.5 * 220 < pictures[1].width == 7 * 220


def test_what_has_no_row_of_its_own_is_not_drawn_and_two_rows_are_not_one_cell(tmp_path):
    path = write_rows(tmp_path / "14_scorecard.csv", accuracy_row(scale="reported", figure="14_scorecard"))
    with pytest.raises(FigureError, match="is empty, or not the data of a notebook's figure"):
        draw_again(path, tmp_path / "again")
    twice = [accuracy_row(k=k, seed=None) for k in (1, 3)]
    with pytest.raises(FigureError, match=r"accuracy: KARD \(BM25\) has two rows for t5-nano-base"):
        lay_out(long_form(twice))


def test_a_scorecard_is_drawn_again_beside_the_figures_that_it_was_drawn_from(tmp_path):
    for name in ("14_scorecard", "04_main"):
        shutil.copy(FIGURES / f"{name}.csv", tmp_path)
    with pytest.raises(FigureError, match="drawn from other data than the figures beside it: run notebook 14 again"):
        draw_again(tmp_path / "14_scorecard.csv", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_figure_with_a_notebooks_own_method_is_drawn_again_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "REGISTRY", known := dict(registry.REGISTRY))
    for module in (accuracy, style, papers):
        monkeypatch.setattr(module, "REGISTRY", known)
    path = write_rows(tmp_path / "04_main.csv", *(accuracy_row(method=m) for m in ("kard_bm25", "mine")))
    assert draw_again(path, tmp_path / "again").is_file() and known["mine"].label == "mine"


def test_what_draws_a_figure_again_is_what_its_notebook_calls():
    """By the drawing's name and the words on its axis: both stand in the notebook that saves the figure."""
    import inspect

    for name, draw in (DRAWN | DRAWN_WITH_SETTINGS).items():
        if name == GLUE:  # of all tasks, which no notebook has together
            continue
        (path,) = (REPOSITORY / "notebooks").glob(f"{name[:2]}_*.ipynb")
        source = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        code = next(line for line in inspect.getsource(papers).splitlines() if line.startswith(f'    "{name}": '))
        if draw is papers._draw_keys:
            code = inspect.getsource(draw)
        assert f'"{name}"' in source and f"{re.search(r'plot_[a-z]+', code)[0]}(" in source, name
        assert all(name in source for name in re.findall(r"\bIN_[A-Z_]+", code)), name  # the methods shown: one list
        axis = re.search(r'knob="([^"]+)"', code)
        assert not axis or axis[1] in source, name


def test_every_published_figure_can_be_drawn_again():
    names = DRAWN | DRAWN_WITH_SETTINGS
    known = {name for path in FIGURES.glob("*.csv") for name in names if path.stem.startswith(name)}
    assert known | {GLUE, "03_losses", "04_losses"} == names.keys() - {"15_own"}


def write_rows(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    long_form(rows).to_csv(path, index=False)
    return path


GAIN = {"figure": "04_main", "method": "kard_reranker", "over": "reasoning_distillation", "k": 3, "n": 900}


def test_two_runs_say_which_values_and_verdicts_changed(tmp_path, capsys):
    same = accuracy_row(figure="04_main", value=0.4, low=0.3, high=0.5)
    won, lost = (accuracy_row(**GAIN, value=v, low=v - 0.05, high=v + 0.05) for v in (0.2, -0.2))
    write_rows(tmp_path / "A" / "figures" / "04_main.csv", same, won)
    write_rows(tmp_path / "B" / "04_main.csv", same | {"scale": "embedded"}, lost | {"scale": "embedded"})
    said, values, verdicts = compare(tmp_path / "A", tmp_path / "B")
    assert said.startswith("2 values are in both, 1 of them differ; 0 are in ")
    assert values["difference"].tolist() == ["-40.0 [-47.1, -32.9]"]
    many = {"figure": "08_candidates", "metric": "milliseconds", "low": None, "high": None}
    for folder, value in (("C", 123456.7), ("D", 123457.5)):  # alike but for their last digits
        write_rows(tmp_path / folder / "08_candidates.csv", accuracy_row(**many, value=value))
    assert compare(tmp_path / "C", tmp_path / "D")[0].startswith("1 values are in both, 1 of them differ")
    assert verdicts.iloc[:, -2:].drop_duplicates().to_numpy().tolist() == [["reproduced", "not reproduced"]]
    assert main(["compare", str(tmp_path / "A"), str(tmp_path / "A")]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "values that differ: none\nverdicts that changed: none\n" in err


def test_your_own_csv_beside_ours(tmp_path):
    ours = write_rows(tmp_path / "run" / "04_main.csv", accuracy_row(figure="04_main", k=3, split="test"))
    yours = tmp_path / "mine.csv"
    yours.write_text(f"{ROW}kard_bm25,t5-nano-base,accuracy,0.6,0.5,0.7\n")
    said, values, _ = compare(ours.parent, yours)
    assert said.startswith("1 values are in both, 1 of them differ") and values["difference"].tolist() == ["+10.0"]
    write_rows(ours, *(accuracy_row(figure="04_main", k=k, value=0.1 * k) for k in (1, 3)))
    with pytest.raises(FigureError, match=r"has several rows of KARD \(BM25\), accuracy: add figure, .*k to the other"):
        compare(ours.parent, yours)
    with pytest.raises(FigureError, match=r"there is no .*nowhere: make a run with kard reproduce"):
        compare(ours.parent, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FigureError, match="have no value of the same: name two runs"):
        compare(ours.parent, tmp_path / "empty")


def test_a_run_of_one_world_is_compared_with_what_one_world_decided(tmp_path):
    one, many = (accuracy_row(**GAIN | {"figure": figure}, value=0.02, low=low, high=0.05)
                 for figure, low in (("04_main", -0.01), ("21_worlds_full", 0.01)))  # fmt: skip
    for folder in ("A", "B"):
        write_rows(tmp_path / folder / "04_main.csv", one)
    write_rows(tmp_path / "A" / "21_worlds_full.csv", many)
    assert compare(tmp_path / "A", tmp_path / "B")[2].empty
    write_rows(tmp_path / "B" / "21_worlds_full.csv", many | {"low": -0.02})
    assert compare(tmp_path / "A", tmp_path / "B")[2].iloc[:, -2:].to_numpy().tolist() == [["reproduced", "undecided"]]


def test_bibtex_says_what_the_citation_file_says(capsys):
    assert main(["cite"]) == 0
    told = " ".join(capsys.readouterr().out.replace("{ReAugKD}", "ReAugKD").split())
    assert told.count("@inproceedings{") == 2 and f"version = {{{kardlib.__version__}}}" in told
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    for paper in citation["references"]:
        authors = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
        assert f"title = {{{paper['title']}}}" in told and f"author = {{{authors}}}" in told
        assert f"year = {{{paper['year']}}}" in told
    assert BIBTEX.read_text().count("{") == BIBTEX.read_text().count("}")


def test_a_cell_is_shown_as_it_is():
    cell = "<script>x</script> [here](javascript:x) *a* | b\n+1 [0.5, 2]"
    assert escape(cell) == r"&lt;script&gt;x&lt;/script&gt; \[here\](javascript:x) \*a\* \| b<br>+1 [0.5, 2]"
    assert escape(r"a_b [-1, +2] [1](x) _c_ ~d~ `e` \| &lt;") == (
        r"a_b [-1, +2] [1\](x) \_c\_ \~d\~ \`e\` \\\| &amp;lt;"
    )
