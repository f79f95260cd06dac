"""The demo world's student: a dual encoder as small as such a thing can be, with CLIP's interface."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from cprd_pipeline.corpus.scene_captions import vocabulary
from cprd_pipeline.models.scene_layers import ImageTower, SceneModel, TextTower, build_seeded, text_mask
from cprd_pipeline.models.scene_processing import build_image_processor, build_tokenizer


class SceneStudentConfig(PreTrainedConfig):  # type: ignore[misc]
    """Shape of a scene student; the defaults are the demo's.

    Args:
        vocab_size: Words of the tokenizer, special ones included.
        width: Width of both towers.
        heads: Attention heads of each layer.
        image_layers: Transformer layers after the convolution stem.
        text_layers: Transformer layers of the text tower.
        stem_width: Channels after the first convolution.
        projection_dim: Width of the common space.
        logit_scale_init_value: Where the learned log inverse temperature begins, as in CLIP.
        pad_token_id: Id of [PAD].
    """

    model_type = "scene_student"

    def __init__(
        self,
        vocab_size: int = 64,
        width: int = 64,
        heads: int = 4,
        image_layers: int = 1,
        text_layers: int = 1,
        stem_width: int = 16,
        projection_dim: int = 64,
        logit_scale_init_value: float = math.log(1 / 0.07),
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.width = width
        self.heads = heads
        self.image_layers = image_layers
        self.text_layers = text_layers
        self.stem_width = stem_width
        self.projection_dim = projection_dim
        self.logit_scale_init_value = logit_scale_init_value
        super().__init__(pad_token_id=pad_token_id, **kwargs)


@dataclass
class SceneStudentOutput(ModelOutput):  # type: ignore[misc]
    """As CLIP's output: logits are cosines times exp(logit_scale), embeddings have length one."""

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None


class SceneStudent(SceneModel):
    """Image tower and text tower, each with a linear projection into a common space."""

    config_class = SceneStudentConfig

    def __init__(self, config: SceneStudentConfig) -> None:
        super().__init__(config)
        self.image_tower = ImageTower(config.width, config.heads, config.image_layers, config.stem_width)
        self.text_tower = TextTower(config.vocab_size, config.width, config.heads, config.text_layers)
        self.visual_projection = nn.Linear(config.width, config.projection_dim)
        self.text_projection = nn.Linear(config.width, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.post_init()

    def reset_parameters(self) -> None:
        """Set the temperature to where it begins."""
        nn.init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    def get_image_features(self, pixel_values: Float[Tensor, "B 3 48 48"]) -> BaseModelOutputWithPooling:
        """Token states and, as `pooler_output`, the projected mean over tokens: [B, projection_dim], not normalised."""
        states = self.image_tower(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.visual_projection(states.mean(1)))

    def get_text_features(self, input_ids: Int[Tensor, "B T"], attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """Token states and, as `pooler_output`, the projected [CLS] state: [B, projection_dim], not normalised."""
        states = self.text_tower(input_ids, text_mask(input_ids, attention_mask, self.config.pad_token_id))
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.text_projection(states[:, 0]))

    def forward(
        self,
        input_ids: Int[Tensor, "C T"],
        pixel_values: Float[Tensor, "I 3 48 48"],
        attention_mask: Tensor | None = None,
    ) -> SceneStudentOutput:
        """Similarity logits of all images with all captions of a batch."""
        images = functional.normalize(self.get_image_features(pixel_values).pooler_output, dim=-1)
        captions = functional.normalize(self.get_text_features(input_ids, attention_mask).pooler_output, dim=-1)
        logits = images @ captions.T * self.logit_scale.exp()
        return SceneStudentOutput(logits_per_image=logits, logits_per_text=logits.T, text_embeds=captions, image_embeds=images)


AutoConfig.register("scene_student", SceneStudentConfig)
AutoModel.register(SceneStudentConfig, SceneStudent)


def build_scene_student(seed: int) -> tuple[SceneStudent, Any, Any]:
    """An untrained student with its tokenizer and image processor; all three have `save_pretrained`."""
    tokenizer = build_tokenizer(vocabulary())
    model = build_seeded(SceneStudent, SceneStudentConfig(vocab_size=len(tokenizer)), seed)
    return model, tokenizer, build_image_processor()
