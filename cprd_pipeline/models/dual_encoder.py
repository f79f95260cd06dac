"""A dual encoder: one vector an image, one vector a caption, whatever family of transformers it is of.

Shape suffixes: B batch, C channels, H height, W width, T tokens, D width of the common space.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from cprd_pipeline.errors import ModelError
from cprd_pipeline.models.encoder_brought import brought_folder
from cprd_pipeline.models.encoder_features import image_features, normalised, text_features
from cprd_pipeline.models.encoder_folder import (
    check_image_processor,
    check_towers,
    load_encoder_tokenizer,
    load_model,
    makes_patches,
    max_text_tokens,
    pads_to_maximum,
)
from cprd_pipeline.models.encoder_identity import encoder_fingerprint as encoder_fingerprint
from cprd_pipeline.models.encoder_sentence import SentenceEncoder
from cprd_pipeline.models.loading import read_config, resolve_model, without_bars
from cprd_pipeline.models.preprocessing import Patches, Pixels, load_image_processor, stacked
from cprd_pipeline.models.sentence_export import check_sentence_length, loads_in_sentence_transformers, write_sentence_files
from cprd_pipeline.models.sentence_identity import is_sentence_encoder


class DualEncoder:
    """A model with two towers, its tokenizer and its image processor.

    CLIP, SigLIP, SigLIP 2 (pictures of one size, and NaFlex), AltCLIP, VisionTextDualEncoder and other models of transformers
    with CLIP's interface; BLIP's retrieval model by its contrastive head. All but BLIP and NaFlex can be trained (`students.py`).

    Args:
        model: The model: `get_image_features` and `get_text_features`, or BlipForImageTextRetrieval.
        tokenizer: Its tokenizer, with a padding token.
        image_processor: Its image processor, of Pillow's kind: torchvision's resizes otherwise.
        device: Where the model shall be.
        dtype: Number type of its weights.
        fingerprint: Names the weights and the preprocessing as they were loaded; empty for a model that was never saved.

    Raises:
        ModelError: The model lacks one of the towers, or the tokenizer or image processor does not fit.
    """

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: Any, device: torch.device, dtype: torch.dtype, fingerprint: str = ""
    ) -> None:
        check_towers(model)
        check_image_processor(image_processor)
        self.model = model.to(device=device, dtype=dtype)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        self.fingerprint = fingerprint
        self.max_text_tokens = max_text_tokens(model, tokenizer)
        self._pads_to_maximum = pads_to_maximum(model)

    @classmethod
    def load(cls, name: str, device: torch.device, dtype: torch.dtype) -> "DualEncoder":
        """Read a dual encoder of transformers from a local folder or from the hub; it is in evaluation mode.

        Raises:
            ModelError: No such model, no dual encoder, or a part of it (weights, tokenizer, image processor) is missing.
            MissingDependencyError: Its tokenizer needs a package that is not installed.
        """
        refuse_brought(name)
        folder = resolve_model(name)
        if is_sentence_encoder(folder):
            # Its further modules would be left out in silence.
            raise ModelError(
                f"{folder}: sentence-transformers wrote it (modules.json)",
                expected="a folder of transformers alone",
                do=_SAVE_PLAIN,
            )
        read_config(folder)
        # The model first: that makes the demo's own classes known, without which transformers remarks on their configuration.
        model = load_model(folder)
        tokenizer, image_processor = load_encoder_tokenizer(folder), load_image_processor(folder)
        encoder = cls(model, tokenizer, image_processor, device, dtype, encoder_fingerprint(name, dtype))
        check_sentence_length(folder, encoder.max_text_tokens)
        return encoder

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the factor by which the contrastive loss multiplies similarities."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    @property
    def lacks_for_training(self) -> str:
        """Why this encoder cannot be a student; empty when it can."""
        if not hasattr(self.model, "logit_scale"):
            return f"{type(self.model).__name__} has no logit_scale, the temperature that training shares with the loss"
        if makes_patches(self.image_processor):
            return f"{type(self.image_processor).__name__} makes patches of pictures of many shapes, which are not augmented"
        return ""

    def save(self, folder: Path) -> None:
        """Write a folder that `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` read with `from_pretrained`.

        Where `loads_in_sentence_transformers`, `SentenceTransformer(folder)` reads it too, and gives the same vectors.
        """
        with without_bars():
            self.model.save_pretrained(folder)
        self.save_preprocessing(folder)
        if loads_in_sentence_transformers(self.model):
            write_sentence_files(folder, self.model, self.max_text_tokens)

    def save_preprocessing(self, folder: Path) -> None:
        """Write tokenizer and image processor alone."""
        if (backend := getattr(self.tokenizer, "backend_tokenizer", None)) is not None:
            # The last call's padding and cutting would be written too, and the file would depend on what was embedded last.
            backend.no_padding()
            backend.no_truncation()
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    @property
    def preprocess(self) -> Pixels | Patches:
        """What makes an input of `embed_prepared` of one RGB picture; it pickles, so that decoding processes can do it."""
        return (Patches if makes_patches(self.image_processor) else Pixels)(self.image_processor)

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "B C H W"]:
        """Preprocessed RGB pictures, float32 on the CPU.

        Raises:
            ModelError: The image processor does not bring them to one size.
        """
        return stacked([*map(Pixels(self.image_processor), images)])

    def tokens(self, captions: Sequence[str]) -> dict[str, Int[Tensor, "B T"]]:
        """`input_ids` and `attention_mask`, on the CPU; longer captions are cut at `max_text_tokens`."""
        padding = "max_length" if self._pads_to_maximum else "longest"
        batch = self.tokenizer(
            list(captions), padding=padding, truncation=True, max_length=self.max_text_tokens, return_tensors="pt"
        )
        ids: Tensor = batch["input_ids"]
        mask = torch.ones_like(ids) if self._pads_to_maximum else batch["attention_mask"]
        return {"input_ids": ids, "attention_mask": mask}

    def token_counts(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of tokens of each caption after cutting, special ones included: int64 [N]."""
        ids = self.tokenizer(list(captions), truncation=True, max_length=self.max_text_tokens)["input_ids"]
        return np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(captions))

    def embed_images(self, pixel_values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Vectors of length one on the model's device, at least float32; gradients flow when they are enabled."""
        return normalised(image_features(self.model, pixel_values=pixel_values.to(self.device, self.dtype)))

    def embed_texts(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Vectors of length one on the model's device, at least float32; gradients flow when they are enabled."""
        ids, mask = input_ids.to(self.device), attention_mask.to(self.device)
        return normalised(text_features(self.model, input_ids=ids, attention_mask=mask))

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        """Vectors of RGB pictures, of length one on the model's device, at least float32."""
        return self.embed_prepared([self.preprocess(picture) for picture in pictures])

    def embed_prepared(self, prepared: Sequence[Any]) -> Float[Tensor, "B D"]:
        """Vectors of what `preprocess` made of pictures, of length one on the model's device, at least float32.

        Raises:
            ModelError: The image processor did not bring them to one size.
        """
        if not makes_patches(self.image_processor):
            return self.embed_images(stacked(prepared))
        patches = {name: torch.stack([one[name] for one in prepared]).to(self.device) for name in prepared[0]}
        return normalised(image_features(self.model, pixel_values=patches.pop("pixel_values").to(self.dtype), **patches))

    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "B D"]:
        """Vectors of captions, of length one on the model's device, at least float32."""
        return self.embed_texts(**self.tokens(captions))


_SAVE_PLAIN = "save its model by transformers' save_pretrained, or use it where nothing is trained (mine, evaluate)"


def load_encoder(name: str, device: torch.device, dtype: torch.dtype) -> DualEncoder | SentenceEncoder:
    """Read any encoder from a local folder or from the hub; it is in evaluation mode.

    Both kinds have `preprocess`, `embed_prepared`, `embed_pictures`, `embed_captions`, `token_counts` and `fingerprint`.

    Raises:
        ModelError: No such model, no dual encoder, or a part of it is missing; or `name` means brought embeddings.
        MissingDependencyError: A package that it needs is not installed.
    """
    refuse_brought(name)
    folder = resolve_model(name)
    if is_sentence_encoder(folder):
        return SentenceEncoder.load(folder, device, dtype)
    return DualEncoder.load(name, device, dtype)


def refuse_brought(name: str) -> None:
    """Refuse brought embeddings where a model must run.

    Raises:
        ModelError: `name` means brought embeddings.
    """
    if brought_folder(name) is not None:
        raise ModelError(
            f"{name}: brought embeddings hold the corpus' items and can embed no other",
            expected="a dual encoder: folder or hub name",
        )
