"""BridgeTower's image-text matching head (Xu et al. 2023, arXiv:2206.08657) as a teacher.

What depends on one side alone is computed once: both towers with their bridges, and of the first cross-modal layer each
stream's self-attention and what the other stream reads of it. What is left for a pair runs without padding, the last layer on
the two first tokens only, since that is all the head reads. Equal to a plain call of transformers'
BridgeTowerForImageAndTextRetrieval per pair up to rounding.

Shape suffixes: B images, S image tokens, T caption tokens, R rows, N pairs, P prepared states (see `Stream.prepare`), W width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import BridgeTowerForImageAndTextRetrieval, BridgeTowerImageProcessorPil

from cprd_pipeline.models.bridgetower_folder import load_parts, text_positions, usable_positions
from cprd_pipeline.models.bridgetower_streams import Block, Layout, Stream, self_attend
from cprd_pipeline.models.captions import text_limit, tokenize
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.models.packing import Run, pack
from cprd_pipeline.models.preprocessing import Pixels, load_tokenizer

# Pairs that run together. Each has states of its own for all image tokens, so the captions' tokens do not bound the memory;
# 32 pairs of the base model are 10,000 rows of 3 KB in float32, and need less than a gigabyte.
_PAIRS = 32


class BridgeTowerText(NamedTuple):
    """A caption as the cross-modal layers read it.

    Args:
        states: As `Stream.prepare` makes them, [P T W].
        tokens: Number of tokens before cutting.
    """

    states: Tensor
    tokens: int


BridgeTowerGroup = tuple[Tensor, Sequence[BridgeTowerText]]


class BridgeTowerTeacher(CrossEncoder):
    """BridgeTower with its matching head; the score is logit[match] - logit[no match].

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        image_processor: Its image processor.
        device: Where it computes.
        dtype: What it computes with; poolers and head stay at least float32, so that near logits do not fall together.
        max_text_tokens: Longest caption in tokens; None for the model's own limit.
    """

    options: ClassVar[frozenset[str]] = frozenset({"max_text_tokens"})

    def __init__(
        self,
        model: BridgeTowerForImageAndTextRetrieval,
        tokenizer: Any,
        image_processor: BridgeTowerImageProcessorPil,
        device: torch.device,
        dtype: torch.dtype,
        max_text_tokens: int | None = None,
    ) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        core = self.model.bridgetower
        for part in (core.cross_modal_text_pooler, core.cross_modal_image_pooler, self.model.itm_score):
            part.to(torch.promote_types(dtype, torch.float32))
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        text = core.config.text_config
        positions = usable_positions(text.max_position_embeddings, text.pad_token_id)
        self._limit = text_limit(tokenizer, positions, max_text_tokens)
        self._layers = core.config.num_hidden_layers
        self._heads = text.num_attention_heads
        self._reading, self._seeing = Stream(core, "text"), Stream(core, "image")

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: Any) -> "BridgeTowerTeacher":
        """Read a folder that transformers' `save_pretrained` wrote, or a snapshot from the hub.

        Raises:
            ModelError: A part is missing or does not fit the others.
            SettingsError: The model cannot do what the settings ask for.
        """
        return cls(*load_parts(folder), device, dtype, **options)

    @classmethod
    def facts(cls, folder: Path, **options: Any) -> dict[str, Any]:
        """Score definition, and the longest caption; reads the tokenizer, not the weights.

        Raises:
            ModelError: There is no tokenizer in the folder.
            SettingsError: The model cannot do what the settings ask for.
        """
        limit = text_limit(load_tokenizer(folder), text_positions(folder), options.get("max_text_tokens"))
        return {"score": "margin", "max_text_tokens": limit}

    @property
    def max_text_tokens(self) -> int:
        """Longest caption in tokens, special ones included; the tokenizer cuts longer ones."""
        return self._limit

    @property
    def preprocess(self) -> Pixels:
        """Pixel values of one picture, all of one size; the model does not read the processor's pixel mask."""
        return Pixels(self.image_processor)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Float[Tensor, "3 Y X"]]) -> list[Tensor]:
        """The image stream's prepared states, [P S W] for each image."""
        pixels = torch.stack(list(images)).to(self.device, self.dtype)
        vision = self.model.bridgetower.vision_model.visual
        states = [vision.forward_pre(pixels)]
        for block in vision.transformer.resblocks[: len(self.model.bridgetower.text_model.encoder.layer)]:
            states.append(block(states[-1]))
        tower = [vision.forward_post(state).flatten(0, 1) for state in states[-self._layers :]]
        size = len(states[0])
        prepared = self._seeing.prepare(tower, [Block(len(images), size, size)], self._reading)
        return list(prepared.view(len(prepared), len(images), size, -1).transpose(0, 1))

    @torch.inference_mode()
    def encode_texts(self, captions: Sequence[str]) -> list[BridgeTowerText]:
        """The text stream's prepared states of each caption.

        Raises:
            ModelError: The tokenizer leaves nothing of a caption.
        """
        encoded = tokenize(self.tokenizer, captions, self._limit)
        packed = pack([caption.ids for caption in encoded], self.device)
        blocks = [Block(run.captions, run.length, run.length) for run in packed.runs]
        prepared = self._reading.prepare(self._read(packed.ids, packed.runs, blocks), blocks, self._seeing)
        first = packed.first[packed.order.argsort()].tolist()
        return [
            BridgeTowerText(prepared[:, start : start + len(caption.ids)], caption.tokens)
            for start, caption in zip(first, encoded, strict=True)
        ]

    def text_tokens(self, text: BridgeTowerText) -> int:
        """Number of tokens of a caption before cutting."""
        return text.tokens

    @torch.inference_mode()
    def logits(self, groups: Sequence[BridgeTowerGroup]) -> Float[Tensor, "N 2"]:
        """No-match and match logits of all pairs, group by group, at least float32, on the teacher's device."""
        images = [image for image, _ in groups]
        owners = np.repeat(np.arange(len(groups)), [len(texts) for _, texts in groups])
        texts = [text.states for _, texts in groups for text in texts]
        head = self.model.itm_score.fc
        logits = torch.empty(len(texts), head.out_features, dtype=head.weight.dtype, device=self.device)
        for start in range(0, len(texts), _PAIRS):
            rows = np.arange(start, min(start + _PAIRS, len(texts)))
            rows = rows[np.argsort([texts[row].shape[1] for row in rows], kind="stable")]
            own, which = np.unique(owners[rows], return_inverse=True)
            shown = torch.stack([images[row] for row in own])
            crossed = self._cross(shown, torch.from_numpy(which).to(self.device), [texts[row] for row in rows])
            logits[torch.from_numpy(rows).to(self.device)] = head(crossed)
        return logits

    def score(self, image: Float[Tensor, "P S W"], texts: Sequence[BridgeTowerText]) -> Float[Tensor, " N"]:
        """Difference of match and no-match logits of one image with N captions, float32 on the CPU."""
        return self.score_groups([(image, texts)])

    def score_groups(self, groups: Sequence[BridgeTowerGroup]) -> Float[Tensor, " N"]:
        """Scores of several images, each with captions of its own, pairs of several images running together; float32 on the CPU."""
        logits = self.logits(groups)
        return (logits[:, 1] - logits[:, 0]).float().cpu()

    def _read(self, ids: Tensor, runs: Sequence[Run], blocks: Sequence[Block]) -> list[Float[Tensor, "R V"]]:
        """The text tower's last states, as many as there are cross-modal layers."""
        text = self.model.bridgetower.text_model
        grids = [ids[run.start : run.start + run.captions * run.length].view(run.captions, run.length) for run in runs]
        # By captions, since the model counts positions over the tokens that are no padding tokens, even inside of a caption.
        states = [torch.cat([text.embeddings(input_ids=grid).flatten(0, 1) for grid in grids])]
        for layer in text.encoder.layer:
            attended = self_attend(layer.attention, states[-1], blocks, self._heads)
            states.append(layer.output(layer.intermediate(attended), attended))
        return states[-self._layers :]

    def _cross(self, images: Float[Tensor, "B P S W"], which: Int[Tensor, " N"], texts: Sequence[Tensor]) -> Float[Tensor, "N X"]:
        """What the head reads of pairs.

        Args:
            images: Prepared states.
            which: The image of each pair.
            texts: Prepared states of each pair's caption, shorter ones first.
        """
        told = torch.cat(list(texts), dim=1)
        shown = [state if len(images) == 1 else state[which] for state in images.unbind(1)]
        # One image is broadcast to its captions wherever it meets states of pairs; attention takes it in rows of each pair.
        rows = [state.expand(len(texts), -1, -1).flatten(0, 1) for state in shown[:4]]
        read, seen = _layouts([text.shape[1] for text in texts], images.shape[2], self.device)
        text_states = self._reading.meet(0, told[0], told[1], (rows[2], rows[3]), read.across)
        image_states = self._seeing.meet(0, rows[0], rows[1], (told[2], told[3]), seen.across)
        for number in range(1, self._layers):
            if number == self._layers - 1:
                read, seen = read.of_first(), seen.of_first()
            text_linked = self._reading.link(number, told[number + 3], text_states)
            image_linked = self._seeing.link(number, shown[number + 3], image_states)
            text_states = self._reading.cross(number, text_linked, image_linked, read)
            image_states = self._seeing.cross(number, image_linked, text_linked, seen)
        if self._layers == 1:
            text_states, image_states = text_states[read.first], image_states[seen.first]
        return torch.cat([self._reading.pool(text_states), self._seeing.pool(image_states)], dim=-1)


def _layouts(lengths: Sequence[int], image_tokens: int, device: torch.device) -> tuple[Layout, Layout]:
    """Layouts of the text and the image stream for pairs whose captions have these lengths, shorter ones first."""
    sizes, counts = np.unique(lengths, return_counts=True)
    runs = list(zip(counts.tolist(), sizes.tolist(), strict=True))
    read = Layout(
        [Block(count, length, length) for count, length in runs],
        [Block(count, length, image_tokens) for count, length in runs],
        torch.tensor(np.cumsum(lengths) - lengths, device=device),
    )
    seen = Layout(
        [Block(len(lengths), image_tokens, image_tokens)],
        [Block(count, image_tokens, length) for count, length in runs],
        torch.arange(0, len(lengths) * image_tokens, image_tokens, device=device),
    )
    return read, seen
