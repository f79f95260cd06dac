"""Words to ids and pictures to pixels for the demo world's models."""

from collections.abc import Iterable

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

from cprd_pipeline.models.scene_layers import IMAGE_SIZE, MAX_TEXT_TOKENS

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[UNK]")

_LOWER = normalizers.Lowercase()
_WORDS = pre_tokenizers.Whitespace()


def words_of(captions: Iterable[str]) -> set[str]:
    """All words of some captions, cut as the tokenizer cuts them."""
    return {word for caption in captions for word, _ in _WORDS.pre_tokenize_str(_LOWER.normalize_str(caption))}


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: lower case, split at spaces and punctuation, [CLS] put first, words it does not know are [UNK]."""
    vocabulary = {word: row for row, word in enumerate([*SPECIAL_TOKENS, *sorted(set(words))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = _LOWER
    tokenizer.pre_tokenizer = _WORDS
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", vocabulary["[CLS]"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        unk_token="[UNK]",
        model_max_length=MAX_TEXT_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_image_processor() -> CLIPImageProcessorPil:
    """48 x 48 pixels in [-1, 1]. Pillow's class by name: the torchvision one resizes otherwise."""
    return CLIPImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
