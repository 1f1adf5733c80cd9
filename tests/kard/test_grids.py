"""Grids name methods that exist, with students and settings that exist, each row once."""

import pytest

from kardlib.kard import grids
from kardlib.kard.methods import METHODS, main_rows
from kardlib.kard.pipeline import Row
from kardlib.presets import preset
from kardlib.settings import SettingsError


@pytest.mark.parametrize("dataset", ["world", "obqa", "own"])
@pytest.mark.parametrize("scale", ["smoke", "embedded", "paper"])
def test_every_row_can_be_set(scale, dataset):
    settings = preset(scale, dataset)
    for number, rows in grids.all_grids(settings, main_rows(oracles=True, rationales=True), steps=7).items():
        assert len({*rows}) == len(rows) and (rows or settings.students == ("random-t5",)), number
        for row in rows:
            assert row.method in METHODS and row.student in settings.students
            settings.override(dict(row.knobs))  # raises for a name that does not exist or a value out of range


@pytest.mark.parametrize("dataset", ["world", "obqa", "own"])
@pytest.mark.parametrize("scale", ["smoke", "embedded", "paper"])
@pytest.mark.parametrize(("oracles", "rationales"), [(True, True), (False, True), (False, False)])
def test_what_is_compared_is_answered(scale, dataset, oracles, rationales):
    settings, methods = preset(scale, dataset), main_rows(oracles=oracles, rationales=rationales)
    found = [grids.main_table(settings, methods), grids.own_data(settings, methods)]
    found += [one(settings) for one in (grids.dataset_size, grids.model_size, grids.candidates, grids.passages)]
    found += [one(settings) for one in (grids.dapt, grids.rag, grids.cases, grids.differences, grids.frontier)]
    found += [grids.rationales(settings, 7), grids.ranked(settings), grids.in_worlds(settings)]
    floors = [Row(name, "") for name in ("bag_of_words", "named_by_reranker")]
    for grid in found:
        compared = [gain for one in grid.gains for gain in (one, one.less) if gain]
        assert len({*grid.gains}) == len(grid.gains)
        assert {row for gain in compared for row in gain[:2]} <= {*grid.rows, *floors}
    assert {gain.above for gain in grids.over_chance(settings, methods)} <= {*found[0].rows}


def told(gains):
    """Of gains by method, student and what is varied (value or name): above and below; of a growth the less, too."""
    rows = [(*gain[:2], *(gain.less[:2] if gain.less else ())) for gain in gains]
    return {tuple((row.method, row.student, row.at if row.x is None else row.x) for row in each) for each in rows}


def test_what_is_over_what_along_each_knob():
    settings = preset()
    small, base, large = settings.students
    ft, rd, bm25, kard = grids.FT, grids.RD, grids.BM25, grids.RERANKER
    at = [(bm25, base, x) for x in (0.01, 0.05, 0.25, 1)]
    leads = {(row, (m, *row[1:])) for row in at for m in (ft, rd)} | {((bm25, base, 0.25), (ft, base, 1))}
    growth = (at[3], (ft, base, 1), at[0], (ft, base, 0.01))
    assert told(grids.dataset_size(settings).gains) == leads | {growth}
    quarter = grids.dataset_size(settings.override({"student.share": 0.25})).gains
    assert len(quarter) == 7 and told(quarter) > leads - {lead for lead in leads if 1 in lead[1]}
    assert len(grids.dataset_size(settings.override({"student.share": 0.01})).gains) == 2  # one share, and no growth
    shrinks = {((kard, large, ""), (m, large, ""), (kard, small, ""), (m, small, "")) for m in (ft, rd)}
    same = {((kard, s, ""), (m, s, "")) for s in (small, base, large) for m in (ft, rd)}
    assert told(grids.model_size(settings).gains) == same | shrinks
    gains = grids.rationales(settings, 7).gains
    assert {(gain.above.x, gain.below.x) for gain in gains} == {(1, 3), (5, 3), (10, 3)} and len(gains) == 6
    assert all(gain.above.at == gain.below.at for gain in gains)
    assert told(grids.ranked(settings, base).gains) == {((kard, base, 100), (kard, base, x)) for x in (10, 20, 50)}
    more = {((m, base, k), (m, base, 1)) for m in (bm25, kard) for k in (2, 3, 5)}
    assert told(grids.passages(settings).gains) == more | {((kard, base, k), (bm25, base, k)) for k in (1, 2, 3, 5)}


def test_what_is_over_what_under_each_condition():
    settings, base = preset(), preset().middle
    plain, corpora = {"dapt": grids.RD, "dapt_kard": grids.RERANKER}, ("own", "neighbour")
    stages = {((m, base, corpus), (plain[m], base, "none")) for m in plain for corpus in corpora}
    rivals = {((grids.RERANKER, base, "none"), ("dapt", base, corpus)) for corpus in corpora}
    assert told(grids.dapt(settings).gains) == stages | rivals
    assert [*grids.corpora(preset("embedded", "obqa"))] == ["none", "own"]
    assert {gain.below.at for gain in grids.differences(settings).gains} == {"the paper"}
    rivals = [grids.RD, grids.FT, grids.KA_FT, "undistilled_reranker"]
    for asked in (METHODS, [grids.RD, grids.RERANKER]):
        others = {student: [(m, student) for m in rivals if m in asked] for student in settings.students}
        over = {((grids.RERANKER, s, ""), (*other, "")) for s in others for other in [*others[s], (grids.NAMED, "")]}
        same = [(grids.SAME, m) for m in (grids.RERANKER, grids.RD) if grids.SAME in asked]
        over |= {((above, s, ""), (below, s, "")) for s in others for above, below in same}
        assert told(grids.in_stratum(settings, asked)) == over
    assert not grids.in_stratum(settings, rivals)


def test_a_lead_grows_from_the_smallest_world_to_the_largest():
    settings = preset()
    usual, students = settings.world.ailments, settings.students
    few, *_, most = grids.sizes(settings)
    assert {few, most, usual} == {*grids.sizes(settings)} and few < usual < most <= 8 * usual
    assert [*grids.sizes(settings, (usual + 2, usual + 1))] == [usual, usual + 1, usual + 2]
    pair = grids.RERANKER, grids.RD
    growth = {tuple((m, s, n) for n in (most, few) for m in pair) for s in students}
    assert told(grids.frontier(settings).gains) == growth
    longer = {((grids.SAME, s, n), (m, s, n)) for s in students for n in (usual, usual + 1) for m in pair}
    assert told(grids.frontier(settings, (usual + 1,)).gains) == longer
    larger = ((grids.RD, students[-1], ""), (grids.RD, students[0], ""))
    assert larger in told(grids.beyond_guessing(settings))


def test_the_main_table_has_each_students_rivals_and_the_largest_fine_tuned():
    settings = preset()
    ft, ka_ft, rd, largest = grids.FT, grids.KA_FT, grids.RD, settings.students[-1]
    gains, over = told(grids.main_table(settings, (grids.RERANKER, rd, ft, ka_ft)).gains), {}
    for above, below in gains:
        over.setdefault(above[:2], set()).add(below[:2])
    for s in settings.students:
        rivals = {(rd, s), (ka_ft, s), ("bag_of_words", ""), (grids.NAMED, "")}
        assert over[grids.RERANKER, s] == rivals | ({(ft, largest), (ka_ft, largest)} if s != largest else set())
        assert over[rd, s] == over[ka_ft, s] == {(ft, s)}


@pytest.mark.parametrize("methods", [[grids.RD, grids.RERANKER], [grids.FT, grids.RERANKER], [grids.FT]])
def test_a_main_table_of_few_methods_compares_those_alone(methods):
    grid = grids.main_table(preset(), methods)
    floors = {Row("bag_of_words", ""), Row(grids.NAMED, "")} if grids.RERANKER in methods else set()
    assert {row for gain in grid.gains for row in (gain.above, gain.below)} <= {*grid.rows} | floors


def test_a_notebook_runs_where_its_data_are():
    def of(dataset):
        return {*grids.all_grids(preset("embedded", dataset), METHODS, steps=1)}

    assert of("world") - of("obqa") == {"16", "17", "19", "21"} and of("own") - of("obqa") == {"15"}
    assert {"dapt.corpus"} == {name for row in grids.dapt(preset()).rows for name, _ in row.knobs}


@pytest.mark.parametrize("also", [["05"], [10], ["10", "12"]])
def test_other_worlds_are_asked_of_two_notebooks_more_what_is_shown_and_no_other(also):
    with pytest.raises(SettingsError, match=r"^also=.*: other worlds are asked what these name: 10, 11, shown$"):
        grids.in_worlds(preset(), also)


def test_the_largest_share_is_the_one_that_all_other_notebooks_train_on():
    assert [*grids.shares_at(preset())] == [0.01, 0.05, 0.25, 1] and grids.shares_at(preset())[1] == ()
    assert [*grids.shares_at(preset("real", "obqa", "somewhere"))] == [0.01, 0.05, 0.25, 0.3]
    tenth = preset().override({"student.share": 0.1})
    assert grids.shares_at(tenth) == {0.01: (("student.share", 0.01),), 0.05: (("student.share", 0.05),), 0.1: ()}


def test_the_papers_base_student_stands_in_its_tables():
    settings = preset("paper", "medqa_usmle_hf", "somewhere")
    base, large = "google/flan-t5-base", "google/flan-t5-large"
    for grid in (grids.passages(settings), grids.dapt(settings), grids.rag(settings)):
        assert {row.student for row in grid.rows} == {base}
    assert {row.student for row in grids.candidates(settings).rows} == {base, large}
    assert {row.student for row in grids.rationales(settings, 7).rows} == {large} and settings.teacher.rationales == 10
    assert {row.student for row in grids.passages(preset()).rows} == {"t5-nano-base"}


def test_who_recalls_and_who_reads_are_shown_the_same_as_often():
    rows = grids.exposures(["t5-nano-small", "t5-nano-base"]).rows
    each = {
        (m, s, n) for m in (grids.RD, grids.RERANKER) for s in ("t5-nano-small", "t5-nano-base") for n in grids.EPOCHS
    }
    assert {(row.method, row.student, row.x) for row in rows} == each and len(rows) == len(each)
    assert all(dict(row.knobs) == {"student.epochs": row.x} for row in rows)


def test_other_worlds_are_drawn_with_all_that_is_trained_in_them():
    rows = grids.all_grids(preset(), METHODS, steps=1)["21"]
    drawn = {(dict(row.knobs)["world.seed"], dict(row.knobs)["seeds"]) for row in rows}
    assert drawn == {(10, (10,)), (11, (11,))} and {row.student for row in rows} == {preset().middle}
    usual = {row._replace(knobs=row.knobs[:-2]) for row in rows}
    one = preset().override({"students": [preset().middle]})
    assert usual == {*grids.in_worlds(one).rows} and 2 * len(usual) == len(rows)
    more = {*grids.in_worlds(one, ["10", "11"]).rows}
    assert more == usual | {*grids.dapt(one).rows, *grids.rag(one).rows} and len(more) > len(usual)
    same = {*grids.in_worlds(preset(), ["shown"]).rows} - {*grids.in_worlds(preset()).rows}
    assert same == {grids.Row("kard_shown_reranker", student) for student in preset().students}


def test_equal_steps_are_those_of_three_rationales():
    settings = preset()
    rows = grids.rationales(settings, 24).rows
    assert (
        len({row.knobs for row in rows}) == 7 and len(rows) == 8
    )  # four numbers, and three of them again at the steps of the fourth
    assert {dict(row.knobs).get("student.steps") for row in rows} == {None, 24}
    numbers = grids.numbers_at(settings)
    assert grids.at_steps(numbers, 24)[3] == numbers[3]


def test_rationales_are_counted_on_a_quarter_of_the_questions_or_on_fewer():
    for share, taken in ((1.0, 0.25), (0.3, 0.25), (0.1, 0.1)):
        few = preset().override({"student.share": share})
        assert {dict(knobs)["student.share"] for knobs in grids.numbers_at(few).values()} == {taken}


def test_no_more_passages_are_read_than_there_are_candidates():
    few = preset().override({"retrieval.k": 20, "retrieval.k_training": 3})
    assert [*grids.candidates_at(few)] == [20, 50, 100]
    assert "random-t5" not in {row.student for row in grids.candidates(preset("embedded", "obqa")).rows}


def test_all_of_the_released_rerankers_differences_are_all():
    singles = {name: {*knobs} for name, knobs in grids.RERANKER_DIFFERENCES.items()}
    with_loss, with_kl = (singles.pop(f"all of these, {loss}") for loss in ("cross-entropy", "KL"))
    temperatures = {("reranker.temperatures", "released")}
    together = set().union(*singles.values())
    released = ("reranker.tau_1", 1.0)  # and tau_2, with the dot product
    assert with_loss == (together | {released}) - temperatures
    assert with_kl == (together | {released}) - {("reranker.loss", "cross_entropy")}
