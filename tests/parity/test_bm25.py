"""BM25 as measured with pyserini's own searcher: fixed questions and passages in, known figures out."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest

from kardlib.data.files import Dataset, Question, read_kard, read_recorded_rationales
from kardlib.retrieval.lucene import Lucene, find_java
from kardlib.retrieval.runs import Run
from kardlib.settings import KnowledgeSettings
from tests.folders import REAL

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"KARD's released questions are not at {REAL}; set KARD_DATA")

# Percent of questions with a gold passage (all test questions), or a silver one (last 5 % of train), among the first k.
GOLD = {
    "obqa": {1: 26.4, 3: 39.2, 5: 43.8, 10: 52.6, 100: 79.6},
    "strategyqa": {1: 11.8, 3: 21.5, 5: 27.8, 10: 33.6, 100: 56.9},
}
SILVER = {"obqa": {1: 52, 3: 66, 5: 72, 10: 81}, "strategyqa": {1: 21, 3: 37, 5: 43, 10: 53}}

# The searcher that pyserini.search.lucene.LuceneSearcher wraps, without the 15 s of its import.
RIVAL = """
import json, sys, jnius_config
jar, index, queries = json.load(sys.stdin)
jnius_config.set_classpath(jar)
from jnius import autoclass
searcher = autoclass("io.anserini.search.SimpleSearcher")(index)
searcher.set_bm25(0.9, 0.4)
run = {query: [(hit.docid, hit.score) for hit in searcher.search(text, 100)] for query, text in queries.items()}
json.dump(run, sys.stdout)
"""


@pytest.fixture(scope="module", params=["obqa", "strategyqa"])
def searched(request, tmp_path_factory) -> dict[str, Any]:
    data, index = read_kard(REAL, request.param), tmp_path_factory.mktemp(request.param)
    train = data.splits["train"]
    last = range(int(len(train) * 0.95), len(train))
    recorded = read_recorded_rationales(REAL / "kard" / request.param / "rationales_train.jsonl.gz")
    questions = {q.id: q.prompt for q in data.splits["test"] + [train[i] for i in last]}
    rationales = {f"{train[i].id}/{j}": recorded[i][j][:3000] for i in last for j in range(3)}
    with Lucene(KnowledgeSettings()) as lucene:
        lucene.build(index, data.passages)
        run, silver = lucene.search(index, questions, 100), lucene.search(index, rationales, 100)
        asked = {query: [p for p, _ in run[query.split("/")[0]]] for query in rationales}
        given = lucene.score(index, rationales, asked)
    return {
        "data": data,
        "index": index,
        "last": [train[i] for i in last],
        "run": run,
        "silver": silver,
        "given": given,
    }


def hits(questions: list[Question], run: Run, right: Mapping[str, Set[str]], k: int) -> float:
    return 100 * sum(any(p in right.get(q.id, ()) for p, _ in run[q.id][:k]) for q in questions) / len(questions)


def test_gold_hits(searched):
    data: Dataset = searched["data"]
    for k, expected in GOLD[data.name].items():
        assert hits(data.splits["test"], searched["run"], data.gold, k) == pytest.approx(expected, abs=0.05)


def test_silver_hits(searched):
    silver = {q.id: {p for j in range(3) for p, _ in searched["silver"][f"{q.id}/{j}"][:3]} for q in searched["last"]}
    for k, expected in SILVER[searched["data"].name].items():  # printed without decimals
        assert hits(searched["last"], searched["run"], silver, k) == pytest.approx(expected, abs=0.5)


def test_scores_of_given_passages_are_those_of_the_search(searched):
    pairs = [
        (q, p, s) for q, ranked in searched["given"].items() for p, s in ranked if p in dict(searched["silver"][q])
    ]
    assert len(pairs) > 1000
    assert all(dict(searched["silver"][q])[p] == s for q, p, s in pairs)


def test_ranks_are_those_of_pyserini(searched):
    """Its scores are rounded to four decimals, then set apart by a millionth for each tie."""
    import importlib.util

    package = importlib.util.find_spec("pyserini")
    assert package and package.submodule_search_locations
    (jar,) = Path(package.submodule_search_locations[0]).glob("resources/jars/anserini-*-fatjar.jar")
    queries = {q.id: q.prompt for q in searched["data"].splits["test"][:100]}
    done = subprocess.run(
        [sys.executable, "-c", RIVAL],
        input=json.dumps([str(jar), str(searched["index"]), queries]),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"JAVA_HOME": str(find_java()[0])},
    )
    rival = json.loads(done.stdout[done.stdout.index('{"') :])
    for query in queries:
        ours = searched["run"][query]
        assert [p for p, _ in rival[query]] == [p for p, _ in ours]
        assert [s for _, s in rival[query]] == pytest.approx([s for _, s in ours], abs=2e-4)
