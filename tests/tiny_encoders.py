"""Random dual encoders and corpora of a few kilobytes, made on the spot by the tests of several rooms."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES

WORDS = [*"abcdefghijklmnopqrstuvwxyz", *(str(number) for number in range(50))]
_SPECIAL = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
PAD, BOS, EOS = 0, 1, 2
SIZE = 32
_TEXT = {
    "vocab_size": len(_SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 16,
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, between [BOS] and [EOS]."""
    tokenizer = Tokenizer(WordLevel({word: row for row, word in enumerate([*_SPECIAL, *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", BOS), ("[EOS]", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]", model_max_length=16
    )


def _save(folder: Path, model: torch.nn.Module, image_processor: object) -> Path:
    for part in (model, tiny_tokenizer(), image_processor):
        part.save_pretrained(folder)
    return folder


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP folder as a user's download would be."""
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=24))
    size = {"shortest_edge": SIZE}, {"height": SIZE, "width": SIZE}
    return _save(folder, model, CLIPImageProcessorPil(size=size[0], crop_size=size[1]))


def tiny_siglip(folder: Path, seed: int = 0) -> Path:
    """A SigLIP folder."""
    torch.manual_seed(seed)
    model = SiglipModel(SiglipConfig(text_config={**_TEXT, "projection_size": 32}, vision_config=_VISION))
    return _save(folder, model, SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}))


def tiny_two_towers(folder: Path, seed: int = 0) -> Path:
    """BERT and ViT under projections, the arrangement of the paper's student."""
    torch.manual_seed(seed)
    text = {key: value for key, value in _TEXT.items() if key not in ("bos_token_id", "eos_token_id")}
    config = VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(**_VISION), BertConfig(**text), projection_dim=24)
    return _save(folder, VisionTextDualEncoderModel(config), ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}))


def random_captions(count: int, seed: int = 0) -> list[str]:
    """Distinct captions of two to eight words, the last of them told apart by a running number."""
    rng = np.random.default_rng(seed)
    return [" ".join([*rng.choice(WORDS[:26], size=rng.integers(1, 6)), *(str(number)).zfill(4)]) for number in range(count)]


def random_image(seed: int) -> bytes:
    """A small noisy picture with a seeded colour, as PNG bytes."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, size=(1, 1, 3))
    pixels = np.clip(base + rng.normal(0, 40, size=(36, 40, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_corpus(
    folder: Path,
    images: Sequence[tuple[str, bytes, str]],
    captions: Sequence[tuple[str, str, str]],
    positives: Sequence[tuple[str, str]],
) -> Path:
    """A corpus folder from (id, bytes, split), (id, text, split) and (image id, caption id)."""
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {"source": bytes_digest(repr(captions).encode()).hex()})
    ids, contents, splits = zip(*images, strict=True)
    writer.write_table(
        "images.parquet",
        pa.table(
            [ids, [None] * len(ids), contents, [bytes_digest(c) for c in contents], [40] * len(ids), [36] * len(ids), splits],
            schema=IMAGES,
        ),
    )
    ids, texts, splits = zip(*captions, strict=True)
    digests = [bytes_digest(text.encode()) for text in texts]
    writer.write_table("captions.parquet", pa.table([ids, texts, digests, splits], schema=CAPTIONS))
    writer.write_table("positives.parquet", pa.table([[p[0] for p in positives], [p[1] for p in positives]], schema=POSITIVES))
    writer.finish()
    return folder


def simple_corpus(folder: Path, count: int, captions_each: int = 2, split: str = "train") -> Path:
    """`count` different pictures with `captions_each` different captions each."""
    texts = random_captions(count * captions_each)
    images = [(f"image-{row:03d}", random_image(row), split) for row in range(count)]
    captions = [(f"caption-{row:03d}", text, split) for row, text in enumerate(texts)]
    positives = [(f"image-{row // captions_each:03d}", f"caption-{row:03d}") for row in range(len(texts))]
    return write_corpus(folder, images, captions, positives)
