"""A multimodal model of sentence-transformers as encoder: pictures and captions through its `encode`.

Only loading one needs sentence-transformers; the rest reads files. Such a model is never trained here.

Shape suffixes: B batch, D width of the common space.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cprd_pipeline.corpus.images import as_it_is
from cprd_pipeline.errors import MissingDependencyError, ModelError, first_line
from cprd_pipeline.models.encoder_features import normalised
from cprd_pipeline.models.encoder_folder import check_backend
from cprd_pipeline.models.failures import loading_failures
from cprd_pipeline.models.loading import without_bars
from cprd_pipeline.models.preprocessing import load_image_processor
from cprd_pipeline.models.sentence_files import check_whole, read_json
from cprd_pipeline.models.sentence_identity import EXPECTED, MODULES_FILE, sentence_fingerprint
from cprd_pipeline.models.sentence_identity import is_sentence_encoder as is_sentence_encoder

# Above what rounding moves a unit vector's numbers when its batch changes, below what other padding moves them.
_COMPANY_TOLERANCE, _LOW_PRECISION_TOLERANCE = 1e-4, 0.02


class SentenceEncoder:
    """A `SentenceTransformer` that takes pictures and texts.

    What the folder says about prompts holds: its default prompt is put before captions, and none when it names none.

    Args:
        model: The model, in evaluation mode.
        fingerprint: Of its folder.

    Raises:
        ModelError: It does not take both, sees pictures otherwise than through Pillow, or a caption's vector depends on what
            shares its batch.
    """

    def __init__(self, model: Any, fingerprint: str) -> None:
        if not (model.supports("image") and model.supports("text")):
            found = ", ".join(str(modality) for modality in model.modalities)
            raise ModelError(f"this sentence-transformers model takes {found}", expected="one that takes image and text")
        for module in model.modules():
            check_backend(getattr(getattr(module, "processor", None), "image_processor", None))
        self.model = model
        self.fingerprint = fingerprint
        self._check_company()

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> "SentenceEncoder":
        """Read a folder; code that it brings along is never run, and nothing is fetched.

        Raises:
            MissingDependencyError: sentence-transformers or a package that this model needs is not installed.
            ModelError: The model cannot be loaded, weights are missing, or it is no encoder of pictures and texts.
        """
        model = _load(folder, device, dtype)
        check_whole(folder, model, folder.rglob("*.safetensors"))
        # The processor takes torchvision's kind where that is installed: two machines would see two pictures.
        for module, path in _processors(folder, model):
            module.processor.image_processor = load_image_processor(path)
        return cls(model.to(dtype).eval(), sentence_fingerprint(folder, dtype))

    def token_counts(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of tokens of each caption, special ones included: int64 [N]."""
        ids = self.model.tokenizer(list(captions), verbose=False)["input_ids"]
        return np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(captions))

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        """Vectors of RGB pictures, of length one on the model's device, at least float32.

        Raises:
            ModelError: The model refuses them.
        """
        return self._embed([{"image": picture} for picture in pictures])

    @property
    def preprocess(self) -> Callable[[Image.Image], Image.Image]:
        """The picture itself: sentence-transformers preprocesses what it embeds."""
        return as_it_is

    def embed_prepared(self, prepared: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        """As `embed_pictures`."""
        return self.embed_pictures(prepared)

    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "B D"]:
        """Vectors of captions, of length one on the model's device, at least float32.

        Raises:
            ModelError: The model refuses them.
        """
        # As a dictionary: a bare string that looks like an address or a path of a picture would be read as one.
        return self._embed([{"text": caption} for caption in captions])

    def _embed(self, items: Sequence[dict[str, Any]]) -> Float[Tensor, "B D"]:
        try:
            vectors: Tensor = self.model.encode(list(items), batch_size=len(items), convert_to_tensor=True, show_progress_bar=False)
        except (ValueError, TypeError) as error:
            raise ModelError(f"sentence-transformers refuses a batch ({first_line(error)})", expected=EXPECTED) from error
        return normalised(vectors)

    def _check_company(self) -> None:
        """SigLIP's kin read the last position: padded to the longest of a batch, each batch gives a caption another vector."""
        short, long = "a dog", "a dog and a cat beside a tree"
        alone = self.embed_captions([short])
        together = self.embed_captions([short, long])[:1]
        is_low = next(self.model.parameters()).dtype.itemsize < torch.float32.itemsize
        tolerance = _LOW_PRECISION_TOLERANCE if is_low else _COMPANY_TOLERANCE
        moved = float((alone - together).abs().max())
        if moved > tolerance:
            raise ModelError(
                f"a caption's vector moves by {moved:.2g} with what shares its batch",
                expected="one vector a caption, whatever its company",
                do='save it with processing_kwargs={"text": {"padding": "max_length"}}, or name the transformers folder itself',
            )


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingDependencyError(
            f"sentence-transformers cannot be imported ({first_line(error)})", do="pip install 'cprd-pipeline[encoders]'"
        ) from error
    try:
        with without_bars():
            return SentenceTransformer(
                str(folder), device=str(device), local_files_only=True, trust_remote_code=False, model_kwargs={"dtype": dtype}
            )
    except ImportError as error:
        raise MissingDependencyError(
            f"{folder}: needs a package that is missing ({first_line(error).split('. ')[0]})", do="install it"
        ) from error
    except loading_failures() as error:
        raise ModelError(f"{folder}: cannot be loaded ({first_line(error)})", expected=EXPECTED) from error


def _processors(folder: Path, model: Any) -> list[tuple[Any, Path]]:
    """Modules that preprocess pictures, with the folders of their image processors."""
    modules = read_json(folder / MODULES_FILE, EXPECTED)
    pairs = [(module, folder / entry["path"]) for module, entry in zip(model.children(), modules, strict=True)]
    return [(module, path) for module, path in pairs if hasattr(getattr(module, "processor", None), "image_processor")]
