"""Late interaction and the KL objective against sentence-transformers' and SciPy's."""

import pytest
import torch

from kardlib.kard.reranker import kl_loss
from kardlib.models.encoders import maxsim


def test_maxsim_equals_sentence_transformers():
    util = pytest.importorskip("sentence_transformers.util", reason="sentence-transformers is not installed")
    if not hasattr(util, "maxsim_pairwise"):
        pytest.skip("this sentence-transformers has no maxsim_pairwise")
    torch.manual_seed(0)
    queries, passages = torch.randn(6, 9, 16), torch.randn(6, 20, 16)
    query_mask = torch.arange(9) < torch.randint(1, 10, (6, 1))
    passage_mask = torch.arange(20) < torch.randint(1, 21, (6, 1))
    theirs = util.maxsim_pairwise(queries, passages, query_mask, passage_mask)
    assert torch.allclose(maxsim(queries, query_mask, passages, passage_mask), theirs, atol=1e-4)


def test_kl_loss_equals_scipys_relative_entropy():
    special = pytest.importorskip("scipy.special", reason="SciPy is not installed")
    torch.manual_seed(0)
    target, model = 30 * torch.rand(8, 8), 5 * torch.randn(8, 8)
    mask = torch.arange(8) < torch.randint(1, 9, (8, 1))
    expected = [
        special.rel_entr(special.softmax(rho[m].numpy() / 2.0), special.softmax(f[m].numpy() / 0.5)).sum()
        for rho, f, m in zip(target.double(), model.double(), mask, strict=True)
    ]
    assert kl_loss(target, model, mask, 2.0, 0.5).item() == pytest.approx(sum(expected) / 8, rel=1e-4)
