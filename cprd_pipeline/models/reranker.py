"""Any vision-language reranker that sentence-transformers loads as a CrossEncoder, as a teacher.

Such a model reads query and document in one sequence and knows which is which, so a pair has a score for each direction.
Nothing of an image can be computed ahead through its plain calls: each pair costs one whole pass.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from cprd_pipeline.errors import ModelError, first_line
from cprd_pipeline.models.cross_encoder import CrossEncoder, Group
from cprd_pipeline.models.reranker_folder import load_reranker, own_prompt, pair_limit, parts_digests

# Pairs of one pass. A caption is the small part of a pair, so the budget of caption tokens does not bound the memory.
_PASS_PAIRS = 32
# Cut by us before, and counted; sentence-transformers would cut a whole pair, image and ending included, in silence.
_UNCUT = {"text": {"truncation": False}}


class RerankerText(NamedTuple):
    """A caption as the model is given it.

    Args:
        text: The caption, cut at the maximum length.
        tokens: Number of tokens before cutting, without those that a tokenizer puts around a text.
    """

    text: str
    tokens: int


class RerankerTeacher(CrossEncoder):
    """A sentence-transformers CrossEncoder; the score is its raw logit.

    The query is the first of the pair: the image in direction i2t, the caption in direction t2i.

    Args:
        model: The CrossEncoder, on its device.
        prompt: What it is told before each pair; empty for nothing.
        max_text_tokens: Longest caption in tokens; longer ones are cut.
        max_pair_tokens: Longest pair in tokens, image and prompt included; longer ones are refused.
    """

    roles: ClassVar[Literal["both", "each"]] = "each"
    options: ClassVar[frozenset[str]] = frozenset({"prompt", "max_text_tokens"})

    def __init__(self, model: Any, prompt: str, max_text_tokens: int, max_pair_tokens: int) -> None:
        self.model = model
        self.prompt = prompt
        self.max_pair_tokens = max_pair_tokens
        self.direction: Literal["i2t", "t2i"] = "i2t"
        self._limit = max_text_tokens

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "RerankerTeacher":
        """Read a folder that sentence-transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            MissingDependencyError: sentence-transformers or a package that this model needs is not installed.
            ModelError: A part is missing, or it gives no single score for a picture and a text.
            SettingsError: The model cannot do what the settings ask for.
        """
        model, told = load_reranker(folder, device, dtype), cls.facts(folder, **options)
        return cls(model, told["prompt"], told["max_text_tokens"], pair_limit(folder))

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """What the options come down to, and the files that only such a folder has; reads no weights of the model.

        Raises:
            ModelError: A part is missing in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        prompt = options.get("prompt")
        return {
            "prompt": own_prompt(folder) if prompt is None else prompt,
            "max_text_tokens": pair_limit(folder, options.get("max_text_tokens")),
            "parts": parts_digests(folder),
        }

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens; longer ones are cut."""
        return self._limit

    def facing(self, direction: Literal["i2t", "t2i"]) -> "RerankerTeacher":
        """The teacher for one direction; it shares the model."""
        other = copy.copy(self)
        other.direction = direction
        return other

    def encode_images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """The pictures themselves."""
        return list(images)

    def encode_texts(self, captions: Sequence[str]) -> list[RerankerText]:
        """Each caption, cut after its last token within the maximum length.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        texts = list(captions)
        encoded = self.model.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [self._cut(text, spans) for text, spans in zip(texts, encoded["offset_mapping"], strict=True)]

    def text_tokens(self, text: RerankerText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    def score(self, image: Image.Image, texts: Sequence[RerankerText]) -> Float[Tensor, " N"]:
        """Raw logits of one image with N captions, float32 on the CPU.

        Raises:
            ModelError: A pair is longer than the model's limit, or its chat template cannot take such a pair.
        """
        return self.score_groups([(image, texts)])

    @torch.inference_mode()
    def score_groups(self, groups: Sequence[Group]) -> Float[Tensor, " N"]:
        """Raw logits of several images, each with captions of its own, float32 on the CPU.

        Raises:
            ModelError: As `score`.
        """
        pairs = [(image, text) for image, texts in groups for text in texts]
        # Pictures of one size give like numbers of tokens in all families.
        order = sorted(range(len(pairs)), key=lambda row: (pairs[row][0].size, pairs[row][1].tokens))
        scores = torch.empty(len(pairs))
        for start in range(0, len(order), _PASS_PAIRS):
            rows = order[start : start + _PASS_PAIRS]
            scores[rows] = self._pass([pairs[row] for row in rows])
        return scores

    def _pass(self, pairs: Sequence[tuple[Image.Image, RerankerText]]) -> Float[Tensor, " N"]:
        try:
            features = self.model.preprocess(
                [self._ordered(image, text) for image, text in pairs], prompt=self.prompt, processing_kwargs=_UNCUT
            )
        except ValueError as error:
            reason = first_line(error)
            raise ModelError(f"the teacher's processor refuses a pair ({reason})", expected="an image and a text") from error
        lengths = features["attention_mask"].sum(dim=1)
        if int(lengths.max()) > self.max_pair_tokens:
            image, text = pairs[int(lengths.argmax())]
            size = f"{image.width} x {image.height}"
            raise ModelError(
                f"an image of {size} and a caption of {text.tokens} tokens are {int(lengths.max())} tokens together",
                expected=f"at most {self.max_pair_tokens}, this teacher's own limit",
                do="lower teacher.max_text_tokens, or the picture size in the teacher's image processor",
            )
        device = self.model.device
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in features.items()}
        logits: Tensor = self.model(moved)["scores"]
        return logits.squeeze(1).float().cpu()

    def _ordered(self, image: Image.Image, text: RerankerText) -> tuple[Any, Any]:
        # As a dictionary: a bare string that looks like an address or a path of a picture would be read as one.
        caption = {"text": text.text}
        return (image, caption) if self.direction == "i2t" else (caption, image)

    def _cut(self, text: str, spans: Sequence[tuple[int, int]]) -> RerankerText:
        if not spans:
            raise ModelError(f"the tokenizer leaves nothing of the caption {text!r}", expected="at least one token")
        kept = text if len(spans) <= self._limit else text[: spans[self._limit - 1][1]]
        return RerankerText(kept, len(spans))
