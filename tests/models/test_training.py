"""What processes share: parts make up the batch, and the order is that of an uninterrupted run in one process."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import LengthGroupedSampler

from kardlib.kard.student import load_student
from kardlib.models.training import EpochOrder, merge_embeddings, part_of


@given(items=st.lists(st.integers(), max_size=40), processes=st.integers(1, 9))
def test_parts_make_up_the_batch_and_differ_by_one_at_most(items, processes):
    parts = [part_of(items, rank, processes) for rank in range(processes)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_is_what_torch_and_transformers_draw_in_a_run_without_interruption():
    examples = [{"input_ids": [0] * (i * 7 % 23 + 1)} for i in range(45)]
    sampler = LengthGroupedSampler(8, dataset=examples, model_input_name="input_ids")
    loader = DataLoader(range(45), 8, sampler=sampler, collate_fn=list)
    torch.manual_seed(3)
    for epoch in range(3):
        drawn = [i for batch in loader for i in batch]
        assert drawn == list(EpochOrder(8, examples, 3, lambda epoch=epoch: epoch)), epoch


def test_merged_embeddings_are_one_module_and_give_the_same():
    model, tokenizer = load_student("t5-nano-small")
    inputs = tokenizer(["fever and rash"], text_target=["The answer is B."], return_tensors="pt")
    batch = {"input_ids": inputs.input_ids, "labels": inputs.labels}
    before = model.eval()(**batch).logits
    merge_embeddings(model)
    assert model.encoder.embed_tokens is model.decoder.embed_tokens is model.shared
    assert torch.equal(model(**batch).logits, before)
