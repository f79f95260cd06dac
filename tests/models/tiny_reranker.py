"""Tiny random vision-language rerankers (LLaVA), saved by sentence-transformers itself."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.pipeline.tiny_models import word_tokenizer

WORDS = "a dog cat man runs beside the red tree house small judge whether query: document: system: assistant: yes no".split()
LONGEST_PAIR = 64
OWN_PROMPT = "judge whether"
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' }}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image> {% else %}{{ part.text + ' ' }}{% endif %}{% endfor %}"
    "{% endfor %}assistant:"
)
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.1}


def transformers_folder(folder: Path, template: str = TEMPLATE) -> Path:
    """Model and processor as transformers leaves them; the large spread makes image, caption and their order count."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(WORDS, LONGEST_PAIR)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = LlamaConfig(**_SMALL, vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=2 * LONGEST_PAIR)
    vision = CLIPVisionConfig(**_SMALL, image_size=32, patch_size=8)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token, image_seq_length=16)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def reranker_folder(folder: Path, **changes: Any) -> Path:
    """A generative reranker, scored by yes against no, that is told `OWN_PROMPT`."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    reader = Transformer(str(transformers_folder(folder / "plain", **changes)), transformer_task="any-to-any")
    verdict = [reader.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")]
    model = CrossEncoder(
        modules=[reader, LogitScore(*verdict)], device="cpu", prompts={"pairs": OWN_PROMPT}, default_prompt_name="pairs"
    )
    model.save_pretrained(str(folder / "saved"), create_model_card=False)
    return folder / "saved"


def headed_folder(folder: Path, labels: int) -> Path:
    """A reranker with a linear head on the last token's state, of a folder of its own."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    reader = Transformer(str(transformers_folder(folder / "plain")), transformer_task="feature-extraction")
    head = Dense(32, labels, module_input_name="sentence_embedding", module_output_name="scores", activation_function=None)
    modules = [reader, Pooling(32, pooling_mode="lasttoken"), head]
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "saved"), create_model_card=False)
    return folder / "saved"
