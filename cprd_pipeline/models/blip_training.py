"""BLIP's contrastive and matching heads with gradients: what `BlipTeacher` scores with, in a form that learns.

Shape suffixes: B images, C captions, N pairs, T text tokens, S image tokens, V width of the vision tower, E of the common space.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from cprd_pipeline.models.blip_layers import project, see

FIRST_TEMPERATURE = 0.07
"""Where the contrastive loss's temperature begins, as in ALBEF and BLIP; the published folders do not tell where it ended."""

_LEAST_TEMPERATURE, _LARGEST_TEMPERATURE = 0.001, 0.5  # ALBEF's and BLIP's bounds


class TrainableBlip(nn.Module):
    """The model, and the temperature that its class has no weight for.

    Args:
        model: With its matching head, in float32.
        first_id: Id that replaces token 0 in what the matching head reads; None leaves it. The contrastive head reads it as it is.
        lower: Number type of the towers where autocast finds it safe; None computes all in float32, as the heads always do.
    """

    def __init__(self, model: BlipForImageTextRetrieval, first_id: int | None, lower: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self.temperature = nn.Parameter(torch.full((), FIRST_TEMPERATURE, device=model.device))
        self._first_id = first_id
        self._lower = lower

    def see(self, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B S V"]:
        """The vision tower's states of each picture."""
        with self._precision():
            return see(self.model.vision_model, pixels)

    def contrast(self, image: Float[Tensor, "B S V"], ids: Int[Tensor, "C T"], mask: Bool[Tensor, "C T"]) -> Float[Tensor, "B C"]:
        """Cosines of the contrastive head, divided by the temperature, for all images and captions; float32."""
        with self._precision():
            text = self.model.text_encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        cosines = project(self.model.vision_proj, image[:, 0]) @ project(self.model.text_proj, text[:, 0]).T
        return cosines / self.temperature

    def match(
        self, image: Float[Tensor, "B S V"], image_rows: Int[Tensor, " N"], ids: Int[Tensor, "N T"], mask: Bool[Tensor, "N T"]
    ) -> Float[Tensor, " N"]:
        """Margins of the matching head, match minus no match; float32.

        The cross-entropy of the two logits is the binary cross-entropy of their margin.

        Args:
            image: The vision tower's states of the distinct images.
            image_rows: Which of them each pair is about.
            ids: Of each pair's caption.
            mask: False at padding.
        """
        if self._first_id is not None:
            ids = torch.cat([torch.full_like(ids[:, :1], self._first_id), ids[:, 1:]], dim=1)
        with self._precision():
            # index_select rather than indexing, whose gradient adds up in any order.
            looked_at = image.index_select(0, image_rows)
            text = self.model.text_encoder(input_ids=ids, attention_mask=mask.long(), encoder_hidden_states=looked_at)
        logits: Tensor = self.model.itm_head(text.last_hidden_state[:, 0].float())
        return logits[:, 1] - logits[:, 0]

    @torch.no_grad()
    def bound_temperature(self) -> None:
        """Keep the temperature in its bounds: in place, since a clamp in the loss would leave no gradient to come back by."""
        self.temperature.clamp_(_LEAST_TEMPERATURE, _LARGEST_TEMPERATURE)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, dtype=self._lower or torch.bfloat16, enabled=self._lower is not None)
