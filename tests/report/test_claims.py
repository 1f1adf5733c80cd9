"""Claims: what is read, what each test decides on hand-made rows, and that the committed claims are sound."""

from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest
import yaml

from kardlib.data.answers import score
from kardlib.registry import REGISTRY
from kardlib.report.claims import (
    GROWTH,
    NOT_RUN,
    SIGNS,
    Claim,
    ClaimError,
    Region,
    Selection,
    findings,
    format_claims,
    gains,
    judge,
    read_claims,
    read_rows,
    summarize,
    tally,
)
from kardlib.report.combined import best_rows, mean_rows
from kardlib.report.drawings.scorecard import plot_claims
from kardlib.report.evaluate import gain_row
from kardlib.report.rows import COLUMNS, FigureError, in_words, long_form, to_rows
from kardlib.settings import validate
from tests.folders import ROOT

NO_CLAIM = {
    "00": "one question proves nothing",
    "14": "it is the scorecard",
    "15": "your own data: no claim of a paper",
    "19": "methods of one's own: no claim of a paper",
}

RD = "reasoning_distillation"
CLAIM = {
    "id": "KARD over RD", "paper": "KARD", "where": "Table 1", "notebook": "04", "says": "KARD is better than RD.",
    "reported": [{"table": "table1_medqa", "columns": ["base"]}],
    "row": {"method": "kard_reranker", "metric": "accuracy", "over": RD}, "test": {"above": 0},
    "could_fail": True, "why": "RD may need no passages.",
}  # fmt: skip


def claim(**changes) -> Claim:
    return validate(Claim, CLAIM | changes)


def row(value: float = 0.05, reach: float | None = 0.02, **changes) -> dict:
    ends = {} if reach is None else {"low": value - reach, "high": value + reach}
    where = {"figure": "04_main", "dataset": "world", "scale": "embedded", "method": "kard_reranker", "k": 3}
    return (
        where | {"student": "t5-nano-base", "metric": "accuracy", "over": RD, "value": value, "n": 600} | ends | changes
    )


def write(folder: Path, name: str, *rows: dict) -> Path:
    folder.mkdir(exist_ok=True)
    long_form(rows).to_csv(folder / f"{name}.csv", index=False)
    return folder


def scorecard(*rows: dict, **changes) -> pd.DataFrame:
    return judge([claim(**changes)], long_form(rows).assign(file="figures/04_main.csv"))


# Verdicts


@pytest.mark.parametrize(
    ("test", "value", "verdict"),
    [
        ({"above": 0}, 0.05, "reproduced"),
        ({"above": 0}, 0.01, "undecided"),
        ({"above": 0}, -0.01, "undecided"),
        ({"above": 0}, -0.05, "not reproduced"),
        ({"above": 0.04}, 0.05, "undecided"),
        ({"above": 0.04}, 0.07, "reproduced"),
        ({"above": 0.04}, 0.01, "not reproduced"),
        ({"below": 0.02}, -0.05, "reproduced"),
        ({"below": 0.02}, -0.01, "reproduced"),
        ({"below": 0.02}, 0.01, "undecided"),
        ({"below": 0.02}, 0.05, "not reproduced"),
        ({"below": 0}, 0.01, "undecided"),
        ({"within": 0.03}, 0.0, "reproduced"),
        ({"within": 0.03}, 0.02, "undecided"),
        ({"within": 0.03}, -0.02, "undecided"),
        ({"within": 0.03}, 0.06, "not reproduced"),
        ({"within": 0.03}, -0.06, "not reproduced"),
        ({"within": 0.01}, 0.0, "undecided"),  # too wide to be inside, and not outside
        ({"within": 0.1, "of": 0.5}, 0.55, "reproduced"),
        ({"within": 0.1, "of": 0.5}, 0.59, "undecided"),
        ({"within": 0.1, "of": 0.5}, 0.65, "not reproduced"),
        ({"within": 0.1, "of": 0.5}, 0.05, "not reproduced"),
    ],
)
def test_the_whole_interval_decides(test, value, verdict):
    assert scorecard(row(value, reach=0.02), test=test)["verdict"].item() == verdict


def test_a_gain_row_is_judged_by_its_interval():
    a, b = [[1, 1, 1, 1, 0, 1, 1, 1]] * 3, [[0, 0, 0, 1, 0, 0, 0, 0]] * 3
    place = row(method="kard_reranker")
    made = place | gain_row(a, b, RD, method="kard_reranker")
    assert scorecard(made)["verdict"].item() == "reproduced"
    made = place | gain_row(b, a, RD, method="kard_reranker")
    assert scorecard(made)["verdict"].item() == "not reproduced"
    assert scorecard(place | gain_row(a, a, RD))["verdict"].item() == "undecided"


def test_without_an_interval_nothing_is_decided():
    for value in (0.5, -0.5):
        line = scorecard(row(value, reach=None)).iloc[0]
        assert line.verdict == "undecided" and pd.isna(line.low) and line.value == 100 * value


@pytest.mark.parametrize(("unread", "told"), [(0.0, "reproduced"), (0.2, "reproduced"), (0.6, "not told")])
def test_nothing_is_told_of_answers_that_could_mostly_not_be_read(unread, told):
    answers = [0] * 4 + [None] * round(10 * unread) + [1] * (6 - round(10 * unread))
    a, b = [[1.0] * 9 + [0.0]] * 3, [[score(answer, gold=0) for answer in answers]] * 3
    table = scorecard(row() | gain_row(a, b, RD), row() | gain_row(a, b, RD, student="t5-nano-small"))
    assert table["verdict"].tolist() == [told] * 2
    last = format_claims(table).splitlines()[-1]
    if told == "not told":
        here = summarize(table)["here"].item().splitlines()[0]
        assert here == "∅ world, embedded, t5-nano-small: 60% of answers could not be read"
        assert "∅ not told: world, embedded, t5-nano-base, accuracy over" in format_claims(table)
        assert last == "2 not told"  # not among the tests that chance alone might decide
    else:
        assert last.startswith("2 tests that could have failed: 2 reproduced; chance alone")
    shown = gains([claim()], table, "world", "embedded")
    assert shown["verdict"].tolist()[-2:] == [told] * 2 and plot_claims(shown)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "kard_bm25"},
        {"over": "fine_tuning"},
        {"over": ""},
        {"metric": "true_statements"},
        {"knob": "l", "x": 3, "over_x": 1},
        {"over_student": "t5-nano-large"},
        {"knob": "corpus", "at": "own", "over_at": "none"},
        {"figure": "06_main"},
        {"seed": 0},
    ],
)
def test_no_such_row_is_not_run(changes):
    line = scorecard(row(**changes)).iloc[0]
    assert (line.verdict, line.scale, line.dataset) == (NOT_RUN, "embedded", "") and pd.isna(line.value)


def test_no_rows_at_all():
    table = judge([claim()], read_rows([]))
    assert table[["scale", "verdict"]].to_numpy().tolist() == [["", NOT_RUN]]
    assert tally(table) == "1 not run at this scale" and tally(judge([], read_rows([]))) == "no claims"


def test_an_undecided_test_says_whether_the_papers_effect_is_ruled_out():
    rows = [row(0.01, reach, student=s) for s, reach in (("a", 0.06), ("b", 0.07))]  # the paper's base student: 7.12
    table = scorecard(*rows)
    assert table["effect"].tolist() == [7.12] * 2 and table["ruled_out"].tolist() == [True, False]
    assert tally(table).endswith("; in 1 of the undecided the papers' own number lies outside of the interval")
    here = summarize(table)["here"].item().splitlines()
    assert [line.rpartition(", ")[-1] for line in here] == [
        "the papers' +7.12 ruled out",
        "the papers' +7.12 not ruled out",
    ]
    assert not scorecard(row(0.01, 0))["ruled_out"].any()  # an interval of no width knows nothing
    ours = scorecard(*rows, reported=[])
    assert not ours["ruled_out"].any() and "papers" not in tally(ours) + summarize(ours)["here"].item()
    grown = {"metric": GROWTH, "over_student": "a"}
    (growth,) = [claim for claim in read_claims() if claim.id == "KARD's gain over RD shrinks with the student"]
    assert growth.effect("world") == pytest.approx(2.62 - 7.12)
    (line,) = judge([growth], long_form([row(-0.01, 0.03, figure="06_x", **grown)]).assign(file="")).to_dict("records")
    assert line["verdict"] == "undecided" and line["ruled_out"]


def test_the_papers_effect_is_that_on_the_same_dataset_if_they_have_one():
    (gain,) = [claim for claim in read_claims() if claim.id == "KARD over KA-FT"]
    everywhere = fmean([4.76, 6.88, 9.82, *(strategyqa := [4.46, 7.23, 17.17]), *(obqa := [5.53, 1.8, 4.73])])
    assert gain.effect("world") == gain.effect("rte") == pytest.approx(everywhere)
    assert gain.effect("strategyqa") == pytest.approx(fmean(strategyqa))
    assert gain.effect("medqa_usmle_hf") == pytest.approx(fmean([4.76, 6.88, 9.82]))
    assert gain.effect("obqa") == pytest.approx(fmean(obqa))


def test_only_tests_that_could_have_failed_are_counted():
    guessing = {"dataset": "world", "could_fail": False, "why": "RD guesses."}
    rows = [row(0.05), *(row(0.05, dataset="obqa", student=s) for s in "abc"), row(-0.05, dataset="strategyqa")]
    table = scorecard(*rows, cases=[guessing])
    assert table.groupby("dataset")["could_fail"].first().to_dict() == {
        "obqa": True,
        "strategyqa": True,
        "world": False,
    }
    assert table.set_index("dataset").loc["world", "why"] == "RD guesses."
    counted, chance, apart = tally(table).split("; ")
    assert counted == "4 tests that could have failed: 3 reproduced, 1 not reproduced"
    assert chance == "chance alone would give 0.1 reproduced and 0.1 not, seldom more than 1 of either"
    assert apart == "1 that could not, and do not count: 1 reproduced"
    could, could_not = summarize(table)["claim"]
    assert could_not == f"{could}\nCould not fail: RD guesses."
    assert "could not fail: RD guesses." in format_claims(table)


def test_a_number_that_two_tables_hold_is_one_test():
    claims = [claim(id=f"knob {knob}", row=CLAIM["row"] | {"knob": knob}) for knob in ("", "k")]
    passages = [row(value, figure="04_passages", knob="k", x=k, k=k) for k, value in ((1, 0.05), (3, 0.05), (5, 0.04))]
    rows = long_form([row(0.05), *passages]).assign(file="")
    table = judge(claims, rows)
    assert table[["id", "k", "could_fail"]].to_numpy().tolist() == [
        ["knob ", 3, True],
        ["knob k", 1, True],  # another number of passages, the same gain by chance
        ["knob k", 3, False],
        ["knob k", 5, True],
    ]
    assert tally(table).startswith("3 tests that could have failed: 3 reproduced")
    more = claim(id="more is asked", row=claims[1].row.model_dump(), test={"above": 0.04})
    assert judge([claims[0], more], rows)["could_fail"].all()


def test_rows_are_told_beside_a_verdict():
    known = {"method": "kard_reranker", "metric": "accuracy"}
    table = scorecard(row(), row(0.515, over=""), beside=[known, known | {"student": "*large"}])
    assert table["beside"].tolist() == ["KARD (reranker), accuracy: 51.5%"]
    assert "Beside it: KARD (reranker), accuracy: 51.5%" in summarize(table)["claim"].item()


def test_every_dataset_scale_and_student_has_its_own_verdict():
    rows = [
        row(0.05, student="t5-nano-large"),
        row(-0.05, student="t5-nano-small"),
        row(0.0, student="random-t5", dataset="obqa"),
        row(0.05, scale="smoke"),
        row(0.05, scale="paper", over="", knob="l", x=3),
    ]
    lines = scorecard(*rows)[["scale", "dataset", "student", "verdict"]].to_numpy().tolist()
    assert lines == [
        ["smoke", "world", "t5-nano-base", "reproduced"],
        ["embedded", "obqa", "random-t5", "undecided"],
        ["embedded", "world", "t5-nano-small", "not reproduced"],  # from small to large
        ["embedded", "world", "t5-nano-large", "reproduced"],
    ]
    elsewhere = judge([claim(reported=[], row=CLAIM["row"] | {"over": "fine_tuning"})], long_form(rows))
    assert elsewhere[["scale", "verdict"]].to_numpy().tolist() == [["smoke", NOT_RUN]]  # once, not for every scale


def chosen(*rows: dict, **selection) -> list[dict]:
    wanted = validate(Selection, {"method": "kard_reranker", "metric": "accuracy", "over": RD} | selection)
    return wanted.choose(long_form(rows)).to_dict("records")


def test_rows_are_chosen_by_their_fields():
    rows = [row(student=s, k=k) for s in ("t5-nano-base", "t5-nano-large") for k in (1, 3)]
    assert [(r["student"], r["k"]) for r in chosen(*rows, student="*base", k=1)] == [("t5-nano-base", 1)]
    assert len(chosen(*rows, student="*base|t5-nano-large")) == 4 and not chosen(*rows, student="*bas|t5")
    assert len(chosen(*rows)) == 4 and not chosen(*rows, dataset="obqa") and not chosen(*rows, student="base")
    rows = [row(knob="l", x=x, at=at) for x in (5, 10) for at in ("", "equal steps")]
    assert [r["at"] for r in chosen(*rows, x=10)] == ["", "equal steps"]
    assert [r["x"] for r in chosen(*rows, at="")] == [5, 10] and len(chosen(*rows, at="*steps")) == 2
    assert chosen(*rows, knob="") == [] and len(chosen(row(), *rows, knob="")) == 1
    assert len(chosen(*rows, k=3)) == 4 and not chosen(*rows, k=1)


def test_what_a_gain_is_over_must_be_named():
    rows = [
        row(knob="corpus", at="own", over_at="none"),
        row(knob="share", x=0.25, over_x=1),
        row(over_student="t5-nano-large"),
        row(over=""),
    ]
    assert chosen(*rows) == []
    assert [r["over_at"] for r in chosen(*rows, over_at="*")] == ["none"]
    assert [r["over_x"] for r in chosen(*rows, over_x=1)] == [1] and not chosen(*rows, over_x=3)
    assert [r["over_student"] for r in chosen(*rows, over_student="*large")] == ["t5-nano-large"]
    assert [r["over"] for r in chosen(*rows, over="")] == [""]


def test_a_star_stands_for_text_alone_and_in_a_knobs_name_for_itself():
    rows = [row(student=""), row(student="a"), row(student="b", knob="kappa*", x=100), row(knob="kappa", x=100)]
    assert [r["student"] for r in chosen(*rows, student="*", knob="")] == ["a"]
    assert [r["student"] for r in chosen(*rows, knob="kappa*")] == ["b"]


def test_a_row_that_two_figures_of_a_notebook_share_counts_once():
    assert len(scorecard(row(), row(figure="04_other"))) == 1


# Means over tasks


def task_rows(gains: dict[str, dict[str, tuple[float, float, float]]], **changes) -> pd.DataFrame:
    """Rows as notebook 13 writes them: for each task the gain over each rival, its low and its high end."""
    return long_form(
        row(dataset=task, figure="13_reaugkd", method="reaugkd", student="minilm, 3 layers", k=None,
            over=rival, value=value, low=low, high=high, n=100, **changes)
        for task, rivals in gains.items()
        for rival, (value, low, high) in rivals.items()
    ).assign(file=[f"figures/13_reaugkd_{task}.csv" for task, rivals in gains.items() for _ in rivals])  # fmt: skip


GLUE_GAINS = {
    "rte": {"rkd": (0.02, -0.01, 0.06), "soft_labels": (0.01, -0.03, 0.05)},
    "mrpc": {"rkd": (0.04, 0.0, 0.07), "soft_labels": (0.07, 0.03, 0.11)},
}


def test_the_mean_over_tasks_and_its_interval():
    means = {mean["over"]: mean for mean in mean_rows(task_rows(GLUE_GAINS))}
    over_rkd = means["rkd"]
    assert over_rkd["value"] == pytest.approx(0.03) and over_rkd["metric"] == "accuracy"
    assert over_rkd["low"] == pytest.approx(0.03 - (0.03**2 + 0.04**2) ** 0.5 / 2)  # 0.005
    assert over_rkd["high"] == pytest.approx(0.03 + (0.04**2 + 0.03**2) ** 0.5 / 2)
    assert (over_rkd["dataset"], over_rkd["n"]) == ("mean of mrpc, rte", 200)
    assert over_rkd["file"] == "figures/13_reaugkd_mrpc.csv, figures/13_reaugkd_rte.csv"
    best = means["best_on_average"]  # RKD, over which the gain is smallest
    assert best["value"] == over_rkd["value"] and len(means) == 3


def test_on_every_task_the_best_earlier_method_is_its_own():
    gains = GLUE_GAINS | {"world": {"rkd": (0.03, 0.0, 0.06), "reaugkd_no_retrieval": (0.01, 0.0, 0.02)}}
    best = {row["dataset"]: row for row in best_rows(task_rows(gains))}
    ends = {task: (row["value"], row["low"], row["high"]) for task, row in best.items()}
    assert ends == {"rte": gains["rte"]["soft_labels"], "mrpc": gains["mrpc"]["rkd"], "world": gains["world"]["rkd"]}
    assert {(row["metric"], row["over"]) for row in best.values()} == {("accuracy", "best_earlier")}
    assert best_rows(long_form([]).assign(file="")) == []
    table = judge([c for c in read_claims() if c.id == "ReAugKD first on a task"], task_rows(GLUE_GAINS))
    assert dict(zip(table["dataset"], table["value"], strict=True)) == {"mrpc": 4, "rte": 1}


def test_parts_of_a_tasks_questions_are_no_task():
    rows = pd.concat([task_rows(GLUE_GAINS), task_rows(GLUE_GAINS, knob="confidence", x=1)], ignore_index=True)
    for derive in (mean_rows, best_rows):
        pd.testing.assert_frame_equal(pd.DataFrame(derive(rows)), pd.DataFrame(derive(task_rows(GLUE_GAINS))))
    for other in ({"method": "reaugkd_no_retrieval"}, {"metric": "f1"}, {"over": ""}, {"seed": 0}):  # nor are these
        rows = pd.concat([task_rows(GLUE_GAINS), task_rows(GLUE_GAINS).assign(**other)], ignore_index=True)
        for derive in (mean_rows, best_rows):
            assert [one["value"] for one in derive(rows)] == [one["value"] for one in derive(task_rows(GLUE_GAINS))]
    gains = {task: {"reaugkd_no_retrieval": (0.05, 0.01, 0.09)} for task in ("rte", "mrpc")}
    rows = pd.concat([task_rows(gains), task_rows(gains, knob="confidence", x=1)], ignore_index=True)
    table = judge([c for c in read_claims() if c.id == "ReAugKD over no retrieval"], rows)
    assert table["dataset"].tolist() == ["mean of mrpc, rte", "mrpc", "rte"]


def test_one_task_and_the_closed_world_have_no_mean():
    assert mean_rows(task_rows({"rte": GLUE_GAINS["rte"]})) == []
    assert mean_rows(task_rows({"rte": GLUE_GAINS["rte"], "world": GLUE_GAINS["mrpc"]})) == []
    assert mean_rows(long_form([]).assign(file="")) == []
    lacking = {"rte": GLUE_GAINS["rte"], "mrpc": {"rkd": GLUE_GAINS["mrpc"]["rkd"]}}
    assert [mean["over"] for mean in mean_rows(task_rows(lacking))] == ["rkd", "best_on_average"]  # no soft labels


def test_colas_verdicts_are_of_its_matthews_correlation():
    """GLUE judges CoLA by it: a gain in accuracy decides nothing there, and counts in no mean."""
    rivals = GLUE_GAINS["rte"] | {"reaugkd_no_retrieval": (0.05, 0.01, 0.09)}
    worse = dict.fromkeys(rivals, (-0.2, -0.3, -0.1))
    tables = [task_rows({"cola": rivals}), task_rows({"cola": worse}, metric="matthews")]
    claims = [c for c in read_claims() if c.notebook == "13"]
    table = judge(claims, pd.concat(tables, ignore_index=True))
    told = table[table["verdict"] != NOT_RUN]
    assert told["verdict"].tolist() == ["not reproduced"] * 2 and set(told["metric"]) == {"matthews"}
    assert set(judge(claims, tables[0])["verdict"]) == {NOT_RUN}
    (best,) = best_rows(pd.concat(tables, ignore_index=True))
    assert (best["metric"], best["value"]) == ("matthews", -0.2)
    rte = task_rows({"rte": {"rkd": (0.1, 0.0, 0.2)}})
    means = {mean["over"]: mean for mean in mean_rows(pd.concat([*tables, rte], ignore_index=True))}
    assert means["rkd"]["value"] == pytest.approx((0.1 - 0.2) / 2) and means["rkd"]["metric"] == "accuracy"


def test_a_mean_without_intervals_decides_nothing():
    rows = task_rows({task: {"rkd": (0.04, None, None)} for task in ("rte", "mrpc")})
    best = {"method": "reaugkd", "metric": "accuracy", "over": "best_on_average"}
    table = judge([claim(notebook="13", reported=[], row=best)], rows)
    assert table["verdict"].tolist() == ["undecided"] and table["value"].tolist() == [4]


def test_the_committed_claim_of_the_mean_is_judged():
    table = judge([c for c in read_claims() if c.notebook == "13"], task_rows(GLUE_GAINS)).set_index("id")
    mean = table.loc["ReAugKD over the best earlier method, mean"]
    assert (mean.verdict, mean.dataset, mean.student) == ("reproduced", "mean of mrpc, rte", "minilm, 3 layers")


def test_numbers_are_in_the_papers_units():
    line = scorecard(row(0.05, reach=0.02), test={"below": 0.1}).iloc[0]
    assert [round(line[name], 6) for name in ("value", "low", "high")] == [5, 3, 7] and line.test == "below 10"
    line = scorecard(row(0.05, reach=0.02), test={"within": 0.1, "of": 0.5}, percent=False).iloc[0]
    assert line.value == 0.05 and line.test == "within 0.1 of 0.5" and line.n == 600


# Text


def test_the_scorecard_as_text():
    table = judge(
        [claim(note="The paper contradicts itself."), claim(id="B", notebook="13", reported=[])],
        long_form([row(), row(-0.05, student="t5-nano-large")]).assign(file="figures/04_main.csv"),
    )
    text, words = format_claims(table), "accuracy over Reasoning distillation (RD)"
    for said in (
        "KARD over RD (KARD, Table 1; notebook 04; test: above 0)\n    KARD is better than RD.",
        "paper: Table 1, MedQA: base +7.12\n    note: The paper contradicts itself.",
        f"✓ reproduced: world, embedded, t5-nano-base, {words}: +5 [+3, +7] (figures/04_main.csv)",
        f"✗ not reproduced: world, embedded, t5-nano-large, {words}: -5 [-7, -3]",
        "– not run at this scale: embedded",
    ):
        assert said in text
    *_, last = text.splitlines()
    assert last.startswith("2 tests that could have failed: 1 reproduced, 1 not reproduced; chance alone would give ")
    assert last.endswith("; 1 not run at this scale")
    first, second = summarize(table).to_dict("records")
    assert first == {
        "claim": "KARD is better than RD.\nNote: The paper contradicts itself.",
        "paper": "KARD, Table 1, MedQA: base +7.12",
        "here": "✓ world, embedded, t5-nano-base: +5 [+3, +7]\n✗ world, embedded, t5-nano-large: -5 [-7, -3]",
        "test": "above 0",
        "verdict": "✓ reproduced (1)\n✗ not reproduced (1)",
    }
    assert second["paper"] == "KARD, Table 1" and second["verdict"] == "– not run at this scale"


def test_a_notebooks_findings_hold_the_p_and_cut_nothing():
    a, b = [[1, 1, 1, 1, 0, 1, 1, 1]] * 3, [[0, 0, 0, 1, 0, 0, 0, 0]] * 3
    place = {"figure": "09_passages", "dataset": "world", "scale": "smoke", "student": "t5-nano-base"}
    rows = [
        place | {"k": k, "knob": "k", "x": k} | gain_row(a, b, over, method="kard_reranker", over_x=over_x)
        for k in (1, 2, 5) for over, over_x in (("kard_bm25", None), ("kard_reranker", 1)) if (k, over_x) != (1, 1)
    ]  # fmt: skip
    one = place | {"method": "kard_reranker", "metric": "accuracy", "k": 1, "knob": "k", "x": 1, "value": 0.5}
    rows += [one | {"seed": seed} for seed in (0, 1)]
    shown = findings(rows, "09").data.set_index("claim")
    line = shown[shown.index.str.startswith("However many passages")].iloc[0]
    first, *others = line.here.splitlines()
    assert first.startswith("✓ world, smoke, t5-nano-base, accuracy at k = 1 over KARD (BM25): +75 [")
    assert first.endswith(", 2 seeds, p = 0.0025")
    for k, other in zip((2, 5), others, strict=True):
        assert f"accuracy at k = {k} over" in other
    assert line.verdict == "✓ reproduced (3)"
    assert len(shown) == sum(claim.notebook == "09" for claim in read_claims())


def test_rows_of_other_worlds_speak_of_several_notebooks_claims():
    gain = {
        "figure": "21_worlds",
        "dataset": "world",
        "scale": "embedded",
        "student": "t5-nano-base",
        "n": 1800,
        "k": 3,
    }
    gain |= {"method": "kard_reranker", "metric": "accuracy", "value": 0.02, "low": 0.01, "high": 0.03, "p": 0.01}
    rows = [
        gain | {"over": "reasoning_distillation"},
        gain | {"over": "kard_reranker", "knob": "k", "x": 2, "k": 2, "over_x": 1},
        *({k: v for k, v in gain.items() if k not in ("p", "low", "high")} | {"seed": seed} for seed in (10, 11)),
    ]
    shown = findings(rows, "04", "09").data
    assert [text.splitlines()[0].split(": ")[0] for text in shown["here"]] == ["✓ world, embedded, t5-nano-base"] * 2
    assert all(text.endswith("+2 [+1, +3], 2 worlds, p = 0.01") for text in shown["here"])
    assert "– not run" not in "".join(shown["verdict"])


def test_a_notebook_without_a_claim_finds_nothing():
    assert findings([row()], "15").data.empty


def test_gains_are_drawn_beside_the_papers():
    claims = [claim(), claim(id="a share", row={"method": "kard_reranker", "metric": "share_of_failures"}, reported=[])]
    table = judge(claims, long_form([row(), row(dataset="obqa")]).assign(file=""))
    drawn = gains(claims, table, "world", "embedded")
    assert drawn[["method", "dataset", "scale", "where", "verdict"]].to_numpy().tolist() == [
        ["KARD over RD", "MedQA", "reported", "Table 1", ""],
        ["KARD over RD", "world", "embedded", "Table 1", "reproduced"],
    ]
    assert drawn["value"].round(6).tolist() == [0.0712, 0.05] and drawn["could_fail"].all()
    figure = plot_claims(drawn)
    figure.canvas.draw()
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["KARD over RD (Table 1)"]
    assert [text.get_text() for text in ax.texts] == ["t5-nano-base"] and ax.texts[0].get_fontsize() >= 6
    left, bottom, right, _ = figure.get_tightbbox().extents
    assert min(left, bottom) > -0.01 and right < figure.get_size_inches()[0] + 0.01
    named = []
    for could_fail in (True, False):
        figure = plot_claims(drawn.assign(could_fail=drawn["verdict"].eq("") | could_fail))
        named.append([text.get_text() for text in figure.legends[0].get_texts()])
    assert named == [["The paper's", "Ours: reproduced"], ["The paper's"]]


def test_each_unit_has_its_panel_and_each_case_a_line_within_its_claims_row():
    claims = [
        claim(),
        claim(id="true", row={"method": "kard_reranker", "metric": "true_statements", "over": RD}, reported=[]),
    ]
    rows = [row(student=student) for student in ("t5-nano-small", "t5-nano-base")] + [row(metric="true_statements")]
    figure = plot_claims(gains(claims, judge(claims, long_form(rows).assign(file="")), "world", "embedded"))
    accuracy, statements = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == ["Gain in accuracy (points)", "Gain in true statements (points)"]
    assert [text.get_text() for text in accuracy.texts] == ["t5-nano-small", "t5-nano-base"]
    places = [container.lines[0].get_ydata().item() for container in accuracy.containers]
    bottom, top = accuracy.get_ylim()
    assert top + 0.5 < places[0] < places[1] < bottom - 0.5 and len(statements.containers) == 1


def test_a_claim_on_a_metric_without_a_panel_is_no_gap_in_the_figure():
    speed = claim(id="speed", row={"method": "kard_reranker", "metric": "milliseconds", "over": RD}, reported=[])
    rows = long_form([row(metric="milliseconds"), row()]).assign(file="")
    with pytest.raises(FigureError, match="no panel is for gains in 'milliseconds': add its unit to UNITS of kardlib"):
        plot_claims(gains([claim(), speed], judge([claim(), speed], rows), "world", "embedded"))


def test_gains_in_what_a_task_is_judged_by_are_drawn():
    rows, claims = long_form([row(dataset="cola", metric="matthews")]).assign(file=""), [claim(reported=[])]
    figure = plot_claims(gains(claims, judge(claims, rows), "cola", "embedded"))
    assert [ax.get_xlabel() for ax in figure.axes] == ["Gain in Matthews correlation (points)"]


def test_the_figure_shows_headline_claims_alone_where_there_are_some():
    claims = [claim(id="told", headline=True, reported=[]), claim(id="left out", reported=[], test={"above": -0.01})]
    table = gains(claims, judge(claims, long_form([row()]).assign(file="")), "world", "embedded")
    names = [
        [tick.get_text() for tick in plot_claims(part).axes[0].get_yticklabels()]
        for part in (table, table.assign(headline=False))
    ]
    assert [[name.partition(" (")[0] for name in shown] for shown in names] == [["told"], ["told", "left out"]]


def test_every_claim_of_a_gain_has_a_panel():
    of_gains = [claim for claim in read_claims() if claim.row.over and claim.row.metric != GROWTH]
    rows = long_form(row(method=claim.id, metric=claim.row.metric) for claim in of_gains)
    assert plot_claims(rows.assign(where="", verdict="", could_fail=True))


# Files

HEAD = ",".join(COLUMNS) + "\n04_main,world,embedded,test,m,s,,"


def test_rows_of_all_folders_and_the_first_counts(tmp_path):
    first = write(tmp_path / "figures", "04_main", row(0.05))
    second = write(tmp_path / "more", "04_main", row(-0.05), row(0.01, dataset="obqa"))
    rows = read_rows([first, second])
    assert list(rows.columns) == [*COLUMNS, "file"]
    assert rows.set_index("dataset")["value"].to_dict() == {"world": 0.05, "obqa": 0.01}
    assert rows["file"].str.endswith(("figures/04_main.csv", "more/04_main.csv")).all()
    assert judge([claim()], rows)["verdict"].tolist() == ["undecided", "reproduced"]  # obqa, world


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(ClaimError, match=r"^there is no folder .*nowhere: name one with --figures, as runs/NAME/fig"):
        read_rows([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "No columns to parse"),
        ("name,age\nme,3\n", "there is no column 'age'"),
        (
            f"{HEAD}3,,,,accuracy,,,,,high,,,\n",
            "value: Input should be a valid number",
        ),
        (f"{HEAD}1.5,,,,accuracy,,,,,0.5,,,\n", "k: Input should be a valid integer"),
        (f"{HEAD}3,,,,gain in accuracy,,,,,0.5,,,\n", "is no identifier"),
        ('"\n', "EOF inside string"),
    ],
)
def test_a_csv_that_is_no_figures_data_is_named(tmp_path, text, reason):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ClaimError, match=r"x\.csv is not a figure's data: ") as error:
        read_rows([tmp_path])
    assert reason in str(error.value) and "make it again or remove it" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ("- [", "is not YAML: "),
        ("\x00", "is not YAML: "),
        ("id: x", "must be a list of claims, not dict"),
        ("", "must be a list of claims, not NoneType"),
        ("- 3", "claim 1: Input should be a valid dictionary"),
        ([CLAIM | {"tset": 1}], "claim 'KARD over RD': tset: Extra inputs are not permitted"),
        ([{k: v for k, v in CLAIM.items() if k != "says"}], "claim 'KARD over RD': says: Field required"),
        ([{k: v for k, v in CLAIM.items() if k != "could_fail"}], "claim 'KARD over RD': could_fail: Field required"),
        ([{k: v for k, v in CLAIM.items() if k != "why"}], "claim 'KARD over RD': why: Field required"),
        ([CLAIM | {"why": ""}], "why: String should have at least 1 character"),
        ([CLAIM | {"cases": [{"dataset": "world", "could_fail": False}]}], "cases.0.why: Field required"),
        ([CLAIM | {"test": {}}], "claim 'KARD over RD': a test is one of above, below, within"),
        ([CLAIM | {"test": {"above": 0, "below": 1}}], "a test is one of above, below, within"),
        ([CLAIM | {"test": {"above": 0, "of": 1}}], "`of` belongs to `within`"),
        ([CLAIM | {"test": {"within": -1}}], "test.within: Input should be greater than 0"),
        ([CLAIM | {"notebook": 4}], "notebook: Input should be a valid string"),
        ([CLAIM | {"notebook": "4"}], "notebook: String should match pattern"),
        ([CLAIM | {"row": CLAIM["row"] | {"datset": "world"}}], "row.datset: Extra inputs"),
        (
            [CLAIM | {"row": {"method": "few_shit", "metric": "accuracy"}}],
            "Table 1 has no row 'few_shit': its",
        ),
        (
            [CLAIM | {"reported": [{"table": "table9"}]}],
            "reported.yml has no table 'table9': its",
        ),
        (
            [CLAIM | {"reported": [{"table": "table1_medqa", "columns": ["big"]}]}],
            "Table 1 has no column 'big': its",
        ),
        ([CLAIM | {"reported": [{"table": "table1_medqa", "names": ["a"]}]}], "must be equally many"),
        (
            [CLAIM | {"note": "{table1_medqa[few_shot][big]}"}],
            "note: 'big' is no number of reported.yml;",
        ),
        (
            [CLAIM | {"note": "{table1_medqa.few_shot}"}],
            "no attribute 'few_shot' is no number of reported.yml",
        ),
        ([CLAIM | {"paper": "BERT"}], "paper: Input should be 'KARD', 'ReAugKD' or 'ours'"),
        ([CLAIM, CLAIM], "there are two claims 'KARD over RD'"),
    ],
)
def test_malformed_claims_are_one_sentence(tmp_path, claims, said):
    path = tmp_path / "claims.yml"
    path.write_text(claims if isinstance(claims, str) else yaml.safe_dump(claims))
    with pytest.raises(ClaimError) as error:
        read_claims(path)
    assert said in str(error.value) and "claims.yml" in str(error.value) and "\n" not in str(error.value)


def test_claims_that_are_not_there(tmp_path):
    with pytest.raises(ClaimError, match=r"no\.yml cannot be read: No such file"):
        read_claims(tmp_path / "no.yml")


# The committed claims


@pytest.fixture(scope="module")
def committed() -> list[Claim]:
    return read_claims()


def test_the_committed_claims_cover_both_papers(committed):
    papers = [claim.paper for claim in committed]
    assert papers.count("KARD") >= 20 and papers.count("ReAugKD") >= 4
    said = " ".join(claim.where for claim in committed)
    for place in ("Section 3", *(f"Table {i}" for i in (1, 3, 4, 5, 6, 7)), *(f"Figure {i}" for i in ("3", "4a"))):
        assert place in said
    assert any("contradicts itself" in claim.note for claim in committed)
    assert any("released code" in claim.note for claim in committed)


def test_every_notebook_is_touched_by_a_claim(committed):
    notebooks = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert notebooks - {claim.notebook for claim in committed} <= set(NO_CLAIM)


def test_no_two_claims_are_decided_by_the_same_row(committed):
    rows = [(claim.notebook, claim.row) for claim in committed]
    assert len(set(rows)) == len(rows)


def test_rows_name_methods_that_there_are(committed):
    assert {claim.row.method for claim in committed} <= REGISTRY.keys()
    assert {claim.row.over for claim in committed} - {""} <= REGISTRY.keys()


def test_a_lead_over_guessing_and_an_oracle_are_never_counted(committed):
    by_id = {claim.id: claim for claim in committed}
    for name in ("KARD over FT, every size", "silver over KARD", "reranker over BM25, Hits@1"):
        assert not by_id[name].weight("world")["could_fail"] and by_id[name].weight("obqa")["could_fail"]
    assert not by_id["Theorem 1: bits grow with d"].weight("next_symbol")["could_fail"]
    assert by_id["KARD over RD"].weight("world")["could_fail"]  # who recalls knows what was shown often
    found = {claim.id: claim.could_fail for claim in committed if claim.where.startswith("notebook ")}
    assert not found.pop("training the reranker costs gold on StrategyQA")  # in the rows that test it
    for name in ("KARD knows what was never shown", "RD recalls what was shown often"):
        assert not found.pop(name)
    assert len(found) == 21 and all(found.values())  # with other students, or before there were rows
    controls = [by_id["KARD over the undistilled student"], by_id["KARD over a bag of words"]]  # asked for before
    assert all(claim.could_fail and claim.paper == "ours" for claim in controls)
    assert all(case.why.endswith(".") for claim in committed for case in (claim, *claim.cases))


def test_a_note_holds_the_papers_numbers(committed):
    notes = {claim.id: claim.noted for claim in committed}
    assert "reads 38.15 here and 36.76 in Tables 4 and 5" in notes["KARD over RD"]
    assert "error of 1,273 questions" in notes["base KARD over the largest FT"]
    assert not any("{" in note for note in notes.values())


def test_committed_claims_can_be_drawn_and_told(committed):
    table = judge(committed, long_form([row()]).assign(file=""))
    assert set(table["id"]) == {claim.id for claim in committed}
    assert set(table["verdict"]) == {"reproduced", NOT_RUN} and set(table["verdict"]) <= set(SIGNS)
    long_form(to_rows(gains(committed, table, "world", "embedded")[COLUMNS]))  # no two rows for the same cell


def test_the_committed_scorecard_tells_every_case_by_its_fields():
    table = judge(read_claims(), read_rows([ROOT / "figures"]))
    told = table[table["verdict"] != NOT_RUN]
    assert (
        len(told) > 90 and not told.duplicated(["id", "dataset", "scale", "student", "k", "x", "at", "over_at"]).any()
    )
    words = {in_words(case) for case in told.to_dict("records")}
    assert {"accuracy at l = 10 over l = 3", "accuracy, equal steps, at l = 10 over l = 3"} <= words


@pytest.mark.parametrize("test", [{"above": 0}, {"below": 0.1}, {"within": 0.1}])
def test_a_region_says_what_it_is(test):
    region = validate(Region, test)
    low, high = region.ends
    assert low < high
    (name, end), *_ = test.items()
    assert region.in_words(1).startswith(f"{name} {end:g}")
