"""A teacher whose every score is known, and small corpora with candidates for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models.cross_encoder import CrossEncoder
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CANDIDATES
from tests.tiny_encoders import random_captions, random_image, write_corpus

STUB = "tests.scoring.stub:StubTeacher"


def stub_score(pixels: bytes, caption: str, weight: float = 1.0) -> float:
    """What the stub says about a pair: a function of both contents in (-4, 4), rounded so that ties occur."""
    value = int.from_bytes(bytes_digest(pixels + caption.encode())[:4], "little") / 2**32
    return float(np.float32(weight * round(8 * value - 4, 1)))


class StubTeacher(CrossEncoder):
    """Scores by hashing; keeps a list of the pairs that it was asked for."""

    seen: ClassVar[list[tuple[bytes, str]]] = []
    loads: ClassVar[int] = 0

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype, **options: object) -> "StubTeacher":
        """Read the weight."""
        StubTeacher.loads += 1
        return cls(float(load_file(folder / "model.safetensors")["weight"][0]))

    @property
    def max_text_tokens(self) -> int:
        """Six words."""
        return 6

    def encode_images(self, images: Sequence[Image.Image]) -> list[bytes]:
        """Pixels."""
        return [image.tobytes() for image in images]

    def encode_texts(self, captions: Sequence[str]) -> list[str]:
        """The texts."""
        return list(captions)

    def text_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def score(self, image: bytes, texts: Sequence[str]) -> torch.Tensor:
        """`stub_score` of each pair."""
        self.seen.extend((image, text) for text in texts)
        return torch.tensor([stub_score(image, text, self.weight) for text in texts], dtype=torch.float32)


class AskerMatters(StubTeacher):
    """Its scores depend on who asks: a caption that asks hears the double."""

    roles = "each"

    def facing(self, direction: str) -> "AskerMatters":
        """The teacher for one direction."""
        return AskerMatters(self.weight * (2 if direction == "t2i" else 1))


def stub_folder(folder: Path, weight: float = 1.0) -> Path:
    """A model folder of the stub."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "stub"}')
    save_file({"weight": torch.tensor([weight])}, folder / "model.safetensors")
    return folder


def tangled_corpus(folder: Path, images: int = 15) -> Path:
    """Equal pictures and equal texts under several ids, a picture without captions, and another split."""
    texts = random_captions(2 * images)
    pictures = [(f"i{(row * 7) % images:02d}", random_image(row % (images - 2)), "train") for row in range(images)]
    captions = [(f"c{(row * 11) % (2 * images):02d}", texts[row % (2 * images - 3)], "train") for row in range(2 * images)]
    owner = {row: (row % (2 * images - 3)) % (images - 3) for row in range(2 * images)}
    positives = [
        (pictures[image][0], captions[row][0])
        for row, picture in owner.items()
        for image in range(images)
        if image % (images - 2) == picture
    ]
    pictures.append(("other", random_image(99), "test"))
    captions.append(("other", "a b c", "test"))
    return write_corpus(folder, pictures, captions, [*positives, ("other", "other")])


def write_candidates(folder: Path, corpus_folder: Path, k: int, *, part: int = 5, seed: int = 0) -> Path:
    """Candidates as `mine` writes them, with random similarities: no positives, distinct by content."""
    corpus = Corpus(corpus_folder)
    split = corpus.split("train")
    similarity = np.random.default_rng(seed).uniform(-1, 1, (len(corpus.images), len(corpus.captions))).astype(np.float32)
    similarity = similarity[corpus.images.first_with_digest][:, corpus.captions.first_with_digest]
    settings = {"split": "train", "k": k, "seed": seed, "part": part}
    writer = OutputWriter(folder, "candidates", settings, {"corpus": corpus.digest, "encoder": "e"})
    for direction in ("i2t", "t2i"):
        queries = split.images if direction == "i2t" else split.captions
        rows = [_row(corpus, split, similarity, direction, int(query), k) for query in queries]
        for number, start in enumerate(range(0, len(rows), part)):
            table = pa.Table.from_pylist(rows[start : start + part], schema=CANDIDATES)
            writer.write_table(f"{direction}-{number:05d}.parquet", table)
    writer.finish()
    return folder


def _row(corpus, split, similarity, direction, query, k):
    asks_image = direction == "i2t"
    queries, items = (corpus.images, corpus.captions) if asks_image else (corpus.captions, corpus.images)
    values = similarity[query] if asks_image else similarity[:, query]
    mine, other = (0, 1) if asks_image else (1, 0)
    positives = sorted((int(p[other]) for p in split.positives if p[mine] == query), key=lambda row: items.ids[row])
    taken, contents = [], set()
    for row in sorted(split.captions if asks_image else split.images, key=lambda row: (-values[row], items.ids[row])):
        content = items.digests[row].tobytes()
        if row not in positives and content not in contents and len(taken) < k:
            contents.add(content)
            taken.append(row)
    return {
        "query_id": queries.ids[query],
        "direction": direction,
        "candidate_ids": [items.ids[row] for row in taken],
        "similarities": [float(values[row]) for row in taken],
        "positive_ids": [items.ids[row] for row in positives],
        "positive_similarities": [float(values[row]) for row in positives],
        **{field.name: 0 for field in CANDIDATES if field.type == pa.int32()},
    }


def score_settings(folder: Path, **changes: object) -> ScoreSettings:
    """Settings of a run whose corpus, candidates and teacher lie in `folder`."""
    values = {
        "corpus": folder / "corpus",
        "candidates": folder / "candidates",
        "teacher": {"model": str(folder / "stub"), "adapter": STUB},
        "output": folder / "rankings",
        "report": folder / "score.json",
        "device": "cpu",
        "part_pairs": 20,
        "image_batch": 3,
        "token_budget": 16,
    }
    return ScoreSettings.model_validate({**values, **changes})
