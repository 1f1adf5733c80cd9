"""Dense retrieval: FAISS indexes over embeddings, exact or as a graph, on one thread, so that results repeat."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

LINKS, EF_BUILD, EF_SEARCH = 32, 100, 64  # of an HNSW graph: edges of a node, candidates while building and searching


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS compute on one thread: a graph that several threads build differs from run to run.

    The number is put back, because it may be torch's as well: both can share one OpenMP.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@one_thread()
def build_index(keys: NDArray[np.float32], kind: Literal["hnsw", "exact"] = "hnsw") -> Any:
    """A FAISS index over embeddings `keys` (N, d), by inner product: ReAugKD's HNSW graph, or exact."""
    dim = keys.shape[1]
    index: Any
    if kind == "exact":
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_BUILD
    index.add(np.ascontiguousarray(keys, dtype=np.float32))
    return index
