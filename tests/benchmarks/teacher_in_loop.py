"""The whole distillation (mine, score, distill) against the same student with the teacher inside its training loop.

    python -m tests.benchmarks.teacher_in_loop FOLDER [--steps 40]

FOLDER is a project whose demo stages have run (`make demo`). Both sides are process CPU time on one thread. The pipeline's side is
one run of its three stages in this process, with an empty score store; the other side takes some steps of the same training in
which the teacher encodes the batch and scores every pair of it, as the objective wants them, scaled to the training's length.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
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


def teacher_steps(steps: int) -> float:
    """CPU seconds that the teacher takes for some batches, every pair of each."""
    settings = load_settings(DistillSettings, Path("stages/distill.yaml"), ["rankings=[]", "objective=itc"])
    corpus = Corpus(settings.corpus)
    sampler = build_sampler(settings, corpus, corpus.split(settings.split), None)
    teacher = SceneTeacher.load(Path("data/teacher"), torch.device("cpu"), torch.float32)
    with ImageReader(corpus) as reader:
        batches = [(sampler.batch(step), [reader.read(int(row)) for row in sampler.batch(step).images]) for step in range(steps)]

    def work() -> None:
        for rows, pictures in batches:
            texts = teacher.encode_texts([corpus.texts[row] for row in rows.captions])
            for image in teacher.encode_images(pictures):
                assert np.isfinite(teacher.score(image, texts).numpy()).all()

    return cpu_seconds(work)


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
    steps = load_settings(DistillSettings, Path("stages/distill.yaml"), []).steps
    in_loop = teacher_steps(options.steps) * steps / options.steps
    ours, theirs = sum(stages.values()), in_loop + stages["distill"]
    print("| | CPU seconds |\n|---|---|")
    for name, seconds in stages.items():
        print(f"| {name} | {seconds:.1f} |")
    print(f"| **the pipeline** | **{ours:.1f}** |\n| teacher in the loop, {steps} steps | {in_loop:.1f} |")
    print(f"| **student with the teacher in the loop** | **{theirs:.1f}** |\n\nratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
