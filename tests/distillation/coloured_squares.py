"""A corpus that a tiny BLIP can learn in seconds: a coloured square somewhere in a gray picture, and which colour it has."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES
from tests.pipeline.tiny_models import word_tokenizer

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "yellow": (220, 220, 30),
    "purple": (180, 30, 220),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
    "cyan": (30, 220, 220),
}
_SIDE = 12
_SPREAD = 0.2  # of the first weights; with the usual 0.02 so small a model takes many more steps to look at the picture
_WORDINGS = ("a {} square", "{} is the square here")


def coloured_squares(folder: Path, train: int, val: int) -> Corpus:
    """A corpus folder; each image has a caption in each wording, equal texts are one content and positives are closed over it.

    Args:
        folder: Where it shall lie.
        train: Images of the split `train`.
        val: Images of the split `val`, with noise and places of their own.
    """
    draws = np.random.default_rng(0)
    images, captions = [], []
    for number in range(train + val):
        split = "train" if number < train else "val"
        colour = list(COLOURS)[number % len(COLOURS)]
        content = _picture(colour, draws)
        images.append((f"i{number}", None, content, bytes_digest(content), 32, 32, split))
        for wording, words in enumerate(_WORDINGS):
            text = words.format(colour)
            captions.append((f"c{number}-{wording}", text, bytes_digest(text.encode()), split))
    pairs = {
        (image[0], caption[0])
        for a, image in enumerate(images)
        for b, caption in enumerate(captions)
        if a % len(COLOURS) == b // len(_WORDINGS) % len(COLOURS)
    }
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {})
    for name, rows, schema in (
        ("images", images, IMAGES),
        ("captions", captions, CAPTIONS),
        ("positives", sorted(pairs), POSITIVES),
    ):
        table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
        writer.write_table(f"{name}.parquet", table)
    writer.finish()
    return Corpus(folder)


def _picture(colour: str, draws: np.random.Generator) -> bytes:
    pixels = draws.integers(90, 110, (32, 32, 3), dtype=np.uint8)
    top, left = draws.integers(0, 32 - _SIDE, 2)
    pixels[top : top + _SIDE, left : left + _SIDE] = COLOURS[colour]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def tiny_blip(folder: Path, texts: Sequence[str], dropout: float = 0.0, spare_words: int = 2) -> Path:
    """A BLIP folder with random weights, wide enough to learn in few steps.

    Args:
        folder: Where it shall lie.
        texts: Whose words it knows.
        dropout: In both towers.
        spare_words: Rows of the vocabulary that its tokenizer does not name; the published folders have [DEC] and [ENC] there.
    """
    torch.manual_seed(1)
    tokenizer = word_tokenizer(texts)
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "encoder_hidden_size": 32,
        "vocab_size": len(tokenizer) + spare_words,
        "max_position_embeddings": 48,
        "initializer_range": _SPREAD,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "sep_token_id": 2,
        "eos_token_id": 2,
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8, "initializer_range": _SPREAD, "attention_dropout": dropout}
    model = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=24))
    for part in (model, tokenizer, BlipImageProcessorPil(size={"height": 32, "width": 32})):
        part.save_pretrained(folder)
    return folder
