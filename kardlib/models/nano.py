"""The nano models: T5-like students and a BERT-like encoder, with one vocabulary of the closed world's words.

`kardlib/nano_models/` holds their weights, which `kard pretrain-nano` makes.
"""

import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from kardlib.data import world as language
from kardlib.data.files import LETTERS, Question
from kardlib.data.prompts import source_text, target_text

STUDENTS = {"t5-nano-small": 64, "t5-nano-base": 96, "t5-nano-large": 128}  # name -> width
RERANKER = "bert-nano"  # the reranker's encoder


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer: whole words of the world's language, syllables of its names, else single characters."""
    text = [*language.SIGNS, *language.SIGNS.values(), *language.JOBS, *language.DIAGNOSES, *language.OPENERS]
    text += [language.CASE, *language.NOTES, *language.VIGNETTES, *language.OTHER_WORDINGS]
    text += [t for templates in language.RELATIONS.values() for group in templates for t in group]
    text += [source_text(Question("", "", (), 0), []), target_text("", LETTERS[0]), "passage Passage"]
    words = sorted(set(re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", " ".join(text)))))
    words += [w.capitalize() for w in words if w.islower()]
    characters = [chr(c) for c in range(33, 127)]
    special = ["<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*special, *words, *language.FIRST_SYLLABLES, *(f"##{s}" for s in language.SECOND_SYLLABLES)]
    pieces += [*characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=False), decoders.Replace(Regex(r" (?=[.,?:!])"), "")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_student(size: str, vocabulary: int) -> T5ForConditionalGeneration:
    """A student of `STUDENTS` with random weights; `vocabulary` is the number of tokens.

    It has heads of 16, and feed-forward layers four times as wide as itself.
    """
    width = STUDENTS[size]
    return T5ForConditionalGeneration(
        T5Config(  # type: ignore[call-arg]
            vocab_size=vocabulary, d_model=width, d_ff=4 * width, num_layers=2, num_decoder_layers=2,
            num_heads=width // 16, d_kv=16, dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
            tie_word_embeddings=True,
            relative_attention_num_buckets=32, relative_attention_max_distance=64,
        )
    )  # fmt: skip


def build_backbone(vocabulary: int) -> BertModel:
    """The reranker's encoder with random weights; `vocabulary` is the number of tokens."""
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, type_vocab_size=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )  # fmt: skip
    return BertModel(config)
