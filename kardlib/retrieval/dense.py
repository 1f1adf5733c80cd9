"""Dense retrieval: FAISS indexes over vectors, exact or a graph, on one thread so that runs repeat."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

LINKS, EF_BUILD, EF_SEARCH = 32, 100, 64  # of the HNSW graph: edges of a node, candidates while building and searching


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS computes on one thread: a graph that several build differs from run to run. Their number may be torch's too
    (both can share one OpenMP), so it is put back.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@one_thread()
def build_index(keys: NDArray[np.float32], kind: Literal["hnsw", "exact"] = "hnsw") -> Any:
    """A FAISS index over unit vectors (N, d): the paper's HNSW graph, or exact search."""
    dim = keys.shape[1]
    index: Any
    if kind == "exact":
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_BUILD
    index.add(np.ascontiguousarray(keys, dtype=np.float32))
    return index
