"""The whole distillation (mine, score, distill) against the same student with the teacher inside its training loop.

    python -m tests.benchmarks.teacher_in_loop FOLDER [--steps 40]

FOLDER is a project whose demo stages have run (`make demo`). Both sides are process CPU time on one thread. The pipeline's side is
one run of its three stages in this process, with an empty score store; the other side takes some steps of the same training in
which the teacher encodes the batch and scores pairs of it, scaled to the training's length: every pair, as the objective would
like them; or only those that the rankings know, which is what the pipeline's student is taught.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.distillation.knowledge import TeacherKnowledge, open_rankings
from cprd_pipeline.distillation.run import run as distill
from cprd_pipeline.distillation.sampling import build_sampler
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.mining.run import run as mine
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.models.scene_teacher import SceneTeacher
from cprd_pipeline.scoring.run import run as score
from cprd_pipeline.scoring.settings import ScoreSettings
from cprd_pipeline.settings import load_settings


def cpu_seconds(work: Callable[[], object]) -> float:
    """Process CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def pipeline(scratch: Path) -> dict[str, float]:
    """CPU seconds of the three stages, from nothing but corpus and models."""
    mining = load_settings(MineSettings, Path("stages/mine.yaml"), [f"output={scratch}/candidates", f"report={scratch}/m.json"])
    scoring = load_settings(
        ScoreSettings,
        Path("stages/score_teacher.yaml"),
        [f"candidates={scratch}/candidates", f"output={scratch}/rankings", f"report={scratch}/s.json", f"store={scratch}/scores"],
    )
    training = load_settings(
        DistillSettings,
        Path("stages/distill.yaml"),
        [f"rankings=[{scratch}/rankings]", f"output={scratch}/student", f"report={scratch}/d.json"],
    )
    return {
        "mine": cpu_seconds(lambda: mine(mining)),
        "score-teacher": cpu_seconds(lambda: score(scoring)),
        "distill": cpu_seconds(lambda: distill(training)),
    }


def teacher_steps(rankings: Path, steps: int) -> dict[str, float]:
    """CPU seconds that the teacher takes for some batches: with every pair of each, and with the pairs that some rankings know."""
    settings = load_settings(DistillSettings, Path("stages/distill.yaml"), [f"rankings=[{rankings}]"])
    corpus = Corpus(settings.corpus)
    knowledge = TeacherKnowledge.load(open_rankings(settings.rankings), corpus)
    sampler = build_sampler(settings, corpus, corpus.split(settings.split), knowledge)
    teacher = SceneTeacher.load(Path("data/teacher"), torch.device("cpu"), torch.float32)
    batches = [sampler.batch(step) for step in range(steps)]
    with ImageReader(corpus) as reader:
        pictures = [[reader.read(int(row)) for row in rows.images] for rows in batches]
    known = [np.isfinite(knowledge.among(rows).i2t.scores_QN) | np.eye(len(rows.images), dtype=bool) for rows in batches]

    def work(wanted: list[npt.NDArray[np.bool_]]) -> None:
        for rows, seen, wanted_QN in zip(batches, pictures, wanted, strict=True):
            texts = teacher.encode_texts([corpus.texts[row] for row in rows.captions])
            for image, asked in zip(teacher.encode_images(seen), wanted_QN, strict=True):
                assert np.isfinite(teacher.score(image, [texts[place] for place in asked.nonzero()[0]]).numpy()).all()

    every = [np.ones_like(wanted) for wanted in known]
    share = float(np.mean([wanted.mean() for wanted in known]))
    return {
        "every pair of a batch": cpu_seconds(lambda: work(every)),
        f"the {share:.0%} of them that the rankings know": cpu_seconds(lambda: work(known)),
    }


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.chdir(options.folder)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["CPRD_CACHE"] = f"{scratch}/cache"
        stages = pipeline(Path(scratch))
        in_loop = teacher_steps(Path(scratch) / "rankings", options.steps)
    steps = load_settings(DistillSettings, Path("stages/distill.yaml"), []).steps
    ours = sum(stages.values())
    print("| | CPU seconds | x the pipeline |\n|---|---|---|")
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.1f} | |")
    print(f"| **the pipeline** | **{ours:.1f}** | 1.0 |")
    for name, seconds in in_loop.items():
        theirs = seconds * steps / options.steps + stages["distill"]
        print(f"| student with the teacher in the loop, {steps} steps, {name} | {theirs:.1f} | **{theirs / ours:.1f}** |")


if __name__ == "__main__":
    main()
