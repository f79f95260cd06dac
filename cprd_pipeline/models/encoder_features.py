"""What each family of transformers calls the vector of a picture and of a caption.

Shape suffixes: B batch, D width of the common space.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cprd_pipeline.errors import ModelError


def image_features(model: Any, **inputs: Tensor) -> Float[Tensor, "B D"]:
    """Vectors of pictures, not normalised.

    Args:
        model: A dual encoder of transformers.
        **inputs: What the family's image processor makes: `pixel_values`, and of NaFlex the mask and the shapes too.

    Raises:
        ModelError: The model gives no single vector a picture.
    """
    if is_blip(model):
        states: Tensor = model.vision_model(**inputs).last_hidden_state
        return _one_vector_each(model, model.vision_proj(states[:, 0]))
    return _one_vector_each(model, model.get_image_features(**inputs))


def text_features(model: Any, **inputs: Tensor) -> Float[Tensor, "B D"]:
    """Vectors of captions, not normalised.

    Args:
        model: A dual encoder of transformers.
        **inputs: `input_ids` and `attention_mask`.

    Raises:
        ModelError: The model gives no single vector a caption.
    """
    if is_blip(model):
        # Without the image's states the text encoder leaves its cross-attention out: the contrastive head's way.
        states: Tensor = model.text_encoder(**inputs).last_hidden_state
        return _one_vector_each(model, model.text_proj(states[:, 0]))
    return _one_vector_each(model, model.get_text_features(**inputs))


def is_blip(model: Any) -> bool:
    """Whether the vectors are those of BLIP's contrastive head."""
    # Here, since transformers takes two seconds to import, and a run whose vectors are all cached needs none of it.
    from transformers import BlipForImageTextRetrieval

    return isinstance(model, BlipForImageTextRetrieval)


def normalised(features: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Vectors of length one, at least float32: the length of a bfloat16 vector is not one to more than two digits."""
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _one_vector_each(model: Any, output: Any) -> Float[Tensor, "B D"]:
    features = output if isinstance(output, Tensor) else output.pooler_output
    if features is None or features.ndim != 2:
        shape = None if features is None else tuple(features.shape)
        raise ModelError(f"{type(model).__name__} gives features of shape {shape}", expected="one pooled vector an item, [B, D]")
    return features
