"""A study of toy size: the small run's corpus and teacher, three arms over three seeds whose embeddings lie in the cache."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import yaml
from safetensors.torch import save_file

from cprd_pipeline.evaluation.study.settings import StudySettings
from cprd_pipeline.models.dual_encoder import encoder_fingerprint
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.store.folder import InputFolder, cache_folder
from cprd_pipeline.store.output import OutputWriter
from tests.small_run import SmallRun, make_small_run

SEEDS = (0, 1, 2)
# The student of the small run that an arm resembles, and how much its seeds are apart.
ARMS = {"plain": ("base", 0.02), "taught": ("cprd", 0.02), "wild": ("base", 0.3)}
STEPS = (10, 20, 30)


@dataclass
class SmallStudy:
    """Where it lies, and what it is made of."""

    made: SmallRun
    settings: StudySettings

    @property
    def root(self) -> Path:
        """Of everything."""
        return self.made.root

    def changed(self, **changes: object) -> StudySettings:
        """Other settings of the same study."""
        return StudySettings.model_validate(self.settings.as_json() | changes)


def make_small_study(root: Path, *, text: str = "a b 1") -> SmallStudy:
    """Make it under `root`.

    Args:
        root: Where.
        text: A caption, and the label of the arm `taught`.
    """
    made = make_small_run(root, text=text)
    _mark_valid(made)
    evaluate = {
        "corpus": str(made.corpus.path),
        "students": made.students,
        "rankings": str(root / "rankings"),
        "rerank_depth": 10,
        "device": "cpu",
        "dtype": "float32",
    }
    (root / "evaluate.yaml").write_text(yaml.safe_dump(evaluate))
    claims = [
        {"text": "teaching helps", "better": "taught", "worse": "plain"},
        {"text": "noise helps", "better": "wild", "worse": "taught"},
        {"text": "both pull together", "better": "taught", "worse": "wild", "by": "gradient_cosine"},
        {"text": "plain pulls", "better": "plain", "worse": "taught", "by": "gradient_cosine"},
    ]
    settings = StudySettings.model_validate(
        {
            "seeds": SEEDS,
            "arms": {arm: {"label": text if arm == "taught" else arm, "set": {"objective": arm}} for arm in ARMS},
            "reference": "plain",
            "claims": claims,
            "evaluation": root / "evaluate.yaml",
            "chosen_on": "train",
            "random_pairs": root / "rankings",
            "folder": root / "study",
            "replicates": 300,
            "report": root / "study.json",
            "markdown": root / "study.md",
            "page": root / "study.html",
        }
    )
    for number, arm in enumerate(ARMS):
        for seed in SEEDS:
            write_student(made, settings, arm, seed, weight=10 + 10 * number + seed)
    return SmallStudy(made, settings)


def cosine_at(arm: str, seed: int, step: int) -> float:
    """What the training log of an arm with a teacher holds."""
    return {"taught": 0.5, "wild": -0.25}[arm] + 0.01 * seed - 0.001 * step


def write_student(made: SmallRun, settings: StudySettings, arm: str, seed: int, *, weight: int, steps: int = 30) -> None:
    """A folder as `distill` writes it, with one tensor for a model, and its embeddings in the cache."""
    shaping = {"objective": arm, "seed": seed, "steps": steps}
    writer = OutputWriter(settings.student(arm, seed), "student", shaping, {"corpus": made.corpus.digest, "student": "scenes"})
    writer.write_json("config.json", {"model_type": "clip"})
    writer.write_part("model.safetensors", lambda path: save_file({"weight": torch.full((2,), float(weight))}, path))
    rows = [{"step": step} | ({} if arm == "plain" else {"gradient_cosine": cosine_at(arm, seed, step)}) for step in STEPS]
    writer.write_bytes("training_log.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 31}]).encode())
    writer.finish()
    like, noise = ARMS[arm]
    random = np.random.default_rng(weight)
    cache = cache_folder() / "embeddings"
    for side, items in (("images", made.corpus.images), ("captions", made.corpus.captions)):
        digests = items.digests[np.unique(items.first_with_digest)]
        known = EmbeddingCache(cache / encoder_fingerprint(made.students[like], torch.float32) / side).gather(digests)
        vectors = known + noise * random.normal(size=known.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        own = encoder_fingerprint(str(settings.student(arm, seed)), torch.float32)
        EmbeddingCache(cache / own / side).add(digests, vectors.astype(np.float32))


def _mark_valid(made: SmallRun) -> None:
    """The first three candidates of every list become valid hard negatives."""
    folder = made.root / "rankings"
    before = InputFolder(folder, "rankings")
    tables = {name: before.table(name) for name in before.part_names("")}
    writer = OutputWriter(folder, "rankings", before.manifest.settings, before.manifest.inputs | {"valid": "3"})
    for name, table in tables.items():
        place = table.schema.get_field_index("n_valid")
        writer.write_table(name, table.set_column(place, table.schema.field(place), pa.array([3] * len(table), pa.int32())))
    writer.finish()
