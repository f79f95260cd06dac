"""Random model folders of a few kilobytes, one a family of dual encoders, as a user's download would be."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertConfig,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    RobertaConfig,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

from tests.tiny_encoders import WORDS, tiny_siglip

SIZE = 32
LONGEST = 16
"""Tokens of the longest caption of every family here."""

_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}
_VISION = {**_LAYERS, "image_size": SIZE, "patch_size": 16}


def tokenizer(
    special: list[str], *, first: bool = True, last_words: bool = False, model_max_length: int = LONGEST, **options: Any
) -> PreTrainedTokenizerFast:
    """One token a word, behind the special ones, or before them with `last_words`; `first` puts <s> before a caption."""
    vocabulary = [*WORDS, *special] if last_words else [*special, *WORDS]
    words = Tokenizer(WordLevel({word: row for row, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "<s> $A </s>" if first else "$A </s>"
    named = [(token, vocabulary.index(token)) for token in ("<s>", "</s>") if token in special]
    words.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", unk_token="<unk>", model_max_length=model_max_length, **options
    )


def _save(folder: Path, model: torch.nn.Module, *parts: Any) -> Path:
    for part in (_shaken(model), *parts):
        part.save_pretrained(folder)
    return folder


def _shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Biases and norms off their neutral values, so that none can be left out unnoticed."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def clip(folder: Path, seed: int = 0) -> Path:
    """CLIP as published: the last word of the vocabulary ends captions and pads them, and the configuration says 2 for it."""
    torch.manual_seed(seed)
    special = ["<unk>", "<s>", "</s>"]
    words = tokenizer(special, bos_token="<s>", pad_token="</s>", last_words=True)
    text = {**_LAYERS, "vocab_size": len(words), "max_position_embeddings": LONGEST, "bos_token_id": 0, "eos_token_id": 2}
    config = CLIPConfig(text_config={**text, "pad_token_id": 1}, vision_config=_VISION, projection_dim=24)
    return _save(folder, CLIPModel(config), words, _clip_pictures())


def _clip_pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def siglip2(folder: Path, seed: int = 0) -> Path:
    """SigLIP 2 of one picture size: SigLIP's classes, padded with a token of its own, no mask from the tokenizer."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 3 + len(WORDS), "max_position_embeddings": LONGEST, "projection_size": 32}
    config = SiglipConfig(text_config={**text, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}, vision_config=_VISION)
    words = tokenizer(["<pad>", "</s>", "<unk>"], first=False, pad_token="<pad>", model_input_names=["input_ids"])
    return _save(folder, SiglipModel(config), words, SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}))


def naflex(folder: Path, seed: int = 0) -> Path:
    """SigLIP 2 NaFlex: at most 12 patches of 8 pixels, as the picture's shape has it."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 3 + len(WORDS), "max_position_embeddings": LONGEST, "projection_size": 32}
    vision = {**_LAYERS, "patch_size": 8, "num_patches": 16}
    config = Siglip2Config(text_config={**text, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}, vision_config=vision)
    words = tokenizer(["<pad>", "</s>", "<unk>"], first=False, pad_token="<pad>", model_input_names=["input_ids"])
    return _save(folder, Siglip2Model(config), words, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=12))


def _xlm_roberta_words() -> PreTrainedTokenizerFast:
    """As XLM-R's: padding has id 1, positions begin behind it, and the tokenizer allows more than they do."""
    return tokenizer(["<s>", "<pad>", "</s>", "<unk>"], pad_token="<pad>", model_max_length=LONGEST + 2)


def altclip(folder: Path, seed: int = 0) -> Path:
    """AltCLIP: XLM-R with a projection for text."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 4 + len(WORDS), "max_position_embeddings": LONGEST + 2, "project_dim": 24}
    config = AltCLIPConfig(text_config={**text, "pad_token_id": 1}, vision_config=_VISION, projection_dim=24)
    return _save(folder, AltCLIPModel(config), _xlm_roberta_words(), _clip_pictures())


def _two_towers(folder: Path, text: BertConfig | RobertaConfig, words: PreTrainedTokenizerFast) -> Path:
    config = VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(**_VISION), text, projection_dim=24)
    return _save(folder, VisionTextDualEncoderModel(config), words, ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}))


def bert_towers(folder: Path, seed: int = 0) -> Path:
    """ViT and BERT under projections, the arrangement of the paper's student."""
    torch.manual_seed(seed)
    text = BertConfig(**_LAYERS, vocab_size=4 + len(WORDS), max_position_embeddings=LONGEST, pad_token_id=0)
    return _two_towers(folder, text, bert_words())


def roberta_towers(folder: Path, seed: int = 0) -> Path:
    """ViT and RoBERTa under projections."""
    torch.manual_seed(seed)
    text = RobertaConfig(**_LAYERS, vocab_size=4 + len(WORDS), max_position_embeddings=LONGEST + 2, pad_token_id=1)
    return _two_towers(folder, text, _xlm_roberta_words())


def bert_words() -> PreTrainedTokenizerFast:
    """Padding, first, last and unknown before the words, as BERT has them."""
    return tokenizer(["<pad>", "<s>", "</s>", "<unk>"], bos_token="<s>", pad_token="<pad>")


def blip(folder: Path, seed: int = 0) -> Path:
    """BLIP's retrieval model with both heads."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 4 + len(WORDS), "max_position_embeddings": LONGEST, "encoder_hidden_size": 32}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    config = BlipConfig(text_config=text, vision_config=_VISION, image_text_hidden_size=24)
    picture = BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    return _save(folder, BlipForImageTextRetrieval(config), bert_words(), picture)


def chinese_clip(folder: Path, seed: int = 0) -> Path:
    """Chinese-CLIP: BERT without a pooler for text."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 4 + len(WORDS), "max_position_embeddings": LONGEST, "pad_token_id": 0}
    config = ChineseCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=24)
    picture = ChineseCLIPImageProcessorPil(size={"height": SIZE, "width": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return _save(folder, ChineseCLIPModel(config), bert_words(), picture)


def metaclip_2(folder: Path, seed: int = 0) -> Path:
    """MetaCLIP 2: reads the state at the last token."""
    torch.manual_seed(seed)
    text = {**_LAYERS, "vocab_size": 4 + len(WORDS), "max_position_embeddings": LONGEST}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=24)
    return _save(folder, MetaClip2Model(config), bert_words(), _clip_pictures())


FAMILIES = {
    "clip": clip,
    "siglip": tiny_siglip,
    "siglip2": siglip2,
    "naflex": naflex,
    "altclip": altclip,
    "bert_towers": bert_towers,
    "roberta_towers": roberta_towers,
    "blip": blip,
    "chinese_clip": chinese_clip,
    "metaclip_2": metaclip_2,
}
"""Folder and seed to folder, by family."""
