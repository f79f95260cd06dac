"""A run of toy size whose every number is known: a corpus, students as cached embeddings, and a teacher's rankings.

No model is ever loaded: a student's folder holds one tensor, and its embeddings lie in the cache under its fingerprint.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.models.dual_encoder import encoder_fingerprint
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.store.folder import cache_folder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import RANKINGS
from tests.tiny_encoders import random_image, write_corpus

SPLIT = "test"


@dataclass
class SmallRun:
    """The parts of the run. Similarities and teacher scores are matrices of all images by all captions."""

    root: Path
    corpus: Corpus
    students: dict[str, str]
    similarities: dict[str, np.ndarray]
    teacher_scores: np.ndarray

    def positives(self, direction, query):
        """Rows of the right answers of a query row."""
        mine, other = (0, 1) if direction == "i2t" else (1, 0)
        return {int(pair[other]) for pair in self.corpus.positives if pair[mine] == query}

    def sides(self, direction):
        """Query side and item side."""
        sides = (self.corpus.images, self.corpus.captions)
        return sides if direction == "i2t" else sides[::-1]

    def row(self, matrix, direction, query):
        """One query's values for all items."""
        return matrix[query] if direction == "i2t" else matrix[:, query]

    def rows_of_split(self, items):
        """Rows of one side that are in the evaluated split."""
        return [row for row in range(len(items)) if items.splits[row] == SPLIT]


def make_small_run(root: Path, *, k: int = 12, text: str = "a b 1") -> SmallRun:
    """Make it under `root`: 17 images (3 of them train), 3 captions each, a picture and a text that occur twice.

    Args:
        root: Where.
        k: Candidates a query.
        text: The first caption of the first test image.
    """
    corpus = Corpus(_write_corpus(root / "corpus", text))
    random = np.random.default_rng(7)
    latent_images, latent_captions = _latent(corpus, random)
    students, similarities = {}, {}
    for seed, (name, noise) in enumerate({"base": 1.2, "cprd": 0.6}.items()):
        folder = _student_folder(root / name, seed)
        images, captions = (_noisy(latent, noise, random) for latent in (latent_images, latent_captions))
        _equal_contents(corpus, images, captions)
        _fill_cache(folder, corpus, images, captions)
        students[name] = str(folder)
        similarities[name] = (images.astype(np.float64) @ captions.astype(np.float64).T).astype(np.float32)
    scores = (8 * latent_images @ latent_captions.T - 3).astype(np.float32)
    made = SmallRun(root, corpus, students, similarities, scores)
    write_rankings(made, root / "rankings", k=k)
    return made


def write_rankings(
    made: SmallRun, folder: Path, *, k: int = 12, miner: str = "base", corpus: str = "", false_negatives: str = "keep"
) -> Path:
    """Rankings of the split as score-teacher writes them, by plain loops."""
    inputs = {"corpus": corpus or made.corpus.digest, "candidates": f"{k} of {miner}", "teacher": "t"}
    writer = OutputWriter(folder, "rankings", {"false_negatives": false_negatives}, inputs)
    for direction in ("i2t", "t2i"):
        queries, _ = made.sides(direction)
        rows = [_ranking(made, direction, query, k, miner) for query in made.rows_of_split(queries)]
        writer.write_table(f"{direction}-00000.parquet", pa.Table.from_pylist(rows, schema=RANKINGS))
    writer.finish()
    return folder


def _ranking(made, direction, query, k, miner):
    queries, items = made.sides(direction)
    similarity = made.row(made.similarities[miner], direction, query)
    score = made.row(made.teacher_scores, direction, query)
    positives = sorted(made.positives(direction, query), key=lambda row: items.ids[row])
    seen, mined = set(), []
    for row in sorted(made.rows_of_split(items), key=lambda row: (-similarity[row], items.ids[row])):
        content = bytes(items.digests[row])
        if row not in positives and content not in seen:
            seen.add(content)
            mined.append(row)
    ranked = sorted(mined[:k], key=lambda row: (-score[row], items.ids[row]))
    return {
        "query_id": queries.ids[query],
        "direction": direction,
        "candidate_ids": [items.ids[row] for row in ranked],
        "teacher_scores": [float(score[row]) for row in ranked],
        "similarities": [float(similarity[row]) for row in ranked],
        "false_negative": [False] * len(ranked),
        "n_valid": 0,
        "valid_cutoff": None,
        "positive_ids": [items.ids[row] for row in positives],
        "positive_scores": [float(score[row]) for row in positives],
        "positive_similarities": [float(similarity[row]) for row in positives],
    }


def _write_corpus(folder, text):
    images, captions, positives = [], [], set()
    for number in range(17):
        split = "train" if number in (0, 5, 9) else SPLIT
        # Pictures 14 and 16 are the same; so are a caption of 3 and one of 4.
        images.append((f"i{number:02}", random_image(14 if number == 16 else number), split))
        for which in range(3):
            words = f"c {number} {which}"
            words = text if (number, which) == (1, 0) else "d 3 4" if (number, which) in ((3, 1), (4, 2)) else words
            captions.append((f"t{number:02}-{which}", words, split))
            positives.add((f"i{number:02}", f"t{number:02}-{which}"))
    positives |= {("i03", "t04-2"), ("i04", "t03-1")}
    positives |= {("i14", f"t16-{which}") for which in range(3)} | {("i16", f"t14-{which}") for which in range(3)}
    return write_corpus(folder, images, captions, sorted(positives))


def _latent(corpus, random):
    images = random.normal(size=(len(corpus.images), 16))
    owner = np.zeros(len(corpus.captions), dtype=np.int64)
    owner[corpus.positives[:, 1]] = corpus.positives[:, 0]
    captions = images[owner] + 0.8 * random.normal(size=(len(owner), 16))
    _equal_contents(corpus, images, captions)
    return (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, captions))


def _noisy(latent, noise, random):
    vectors = latent + noise * random.normal(size=latent.shape) / 4
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _equal_contents(corpus, images, captions):
    """The same content has the same vector."""
    images[:] = images[corpus.images.first_with_digest]
    captions[:] = captions[corpus.captions.first_with_digest]


def _student_folder(folder, seed):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    save_file({"weight": torch.full((2,), float(seed))}, folder / "model.safetensors")
    return folder


def _fill_cache(folder, corpus, images, captions):
    cache = cache_folder() / "embeddings" / encoder_fingerprint(str(folder), torch.float32)
    for side, items, vectors in (("images", corpus.images, images), ("captions", corpus.captions, captions)):
        first = np.unique(items.first_with_digest)
        EmbeddingCache(cache / side).add(items.digests[first], vectors[first])
