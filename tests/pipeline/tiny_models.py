"""A corpus of generated pictures, the folder of real ones, and tiny random CLIP and BLIP folders that know its words."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
)

_SIZE = 32
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
_NOUNS = "dog cat man woman child ball car tree house river boat bird street horse".split()
_VERBS = "runs jumps sits stands plays walks rests looks".split()


def word_tokenizer(texts: Sequence[str], longest: int = 48) -> PreTrainedTokenizerFast:
    """One token a word of the texts, between [CLS] and [SEP]."""
    words = sorted({word for text in texts for word in text.lower().split()})
    model = WordLevel({word: row for row, word in enumerate([*_SPECIAL, *words])}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=longest,
    )


def tiny_clip_student(folder: Path, texts: Sequence[str]) -> None:
    """A CLIP folder as a user's download would be."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(texts)
    text = {**_SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": 48, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**_SMALL, "image_size": _SIZE, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    crop = {"height": _SIZE, "width": _SIZE}
    for part in (model, tokenizer, CLIPImageProcessorPil(size={"shortest_edge": _SIZE}, crop_size=crop)):
        part.save_pretrained(folder)


def tiny_blip_teacher(folder: Path, texts: Sequence[str]) -> None:
    """A BLIP folder with its matching head; the spread of 0.02 makes the image count (the default ignores it)."""
    torch.manual_seed(1)
    tokenizer = word_tokenizer(texts)
    text = {
        **_SMALL,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "encoder_hidden_size": 32,
        "initializer_range": 0.02,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "sep_token_id": 2,
        "eos_token_id": 2,
    }
    vision = {**_SMALL, "image_size": _SIZE, "patch_size": 16, "initializer_range": 0.02}
    model = BlipForImageTextRetrieval(
        BlipConfig(text_config=text, vision_config=vision, projection_dim=24, image_text_hidden_size=24)
    )
    for part in (model, tokenizer, BlipImageProcessorPil(size={"height": _SIZE, "width": _SIZE})):
        part.save_pretrained(folder)


def karpathy_file(folder: Path, count: int) -> tuple[Path, Path]:
    """A Karpathy split file over generated pictures: `count` for training, 40 for test, two captions each."""
    draws = np.random.default_rng(0)
    pictures = folder / "pictures"
    pictures.mkdir()
    records = []
    for number in range(count + 40):
        pixels = draws.integers(0, 256, (36, 40, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (pictures / f"{number:04d}.png").write_bytes(buffer.getvalue())
        sentences = []
        for caption in (2 * number, 2 * number + 1):
            first, second = draws.choice(_NOUNS, 2)
            raw = f"a {first} {draws.choice(_VERBS)} beside the {second} number {caption}"
            sentences.append({"raw": raw, "tokens": raw.split(), "imgid": number, "sentid": caption})
        split = "train" if number < count else "test"
        ids = [sentence["sentid"] for sentence in sentences]
        record = {"imgid": number, "filename": f"{number:04d}.png", "split": split, "sentids": ids, "sentences": sentences}
        records.append(record)
    annotations = folder / "dataset.json"
    annotations.write_text(json.dumps({"images": records, "dataset": "generated"}))
    return annotations, pictures


def real_photographs() -> tuple[Path, Path]:
    """The Flickr8k photographs of the folder that `CPRD_TEST_DATA` names."""
    root = Path(os.environ["CPRD_TEST_DATA"]) / "photos"
    return root / "dataset_flickr8k.json", root / "images"
