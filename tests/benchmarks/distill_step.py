"""What the teacher's knowledge costs a training step: CPRD in each of its three ways against the contrastive loss alone.

    python -m tests.benchmarks.distill_step [--batch 128] [--rounds 10]

One process takes the steps of all arms in turn and compares process CPU time, and the part of it that reads what the rankings say
about the step's pairs; a process of its own for each arm gives its peak memory. The student is a CLIP of 12 million parameters with
random weights, the corpus 20,000 random pictures with two random captions each, the rankings 64 random candidates of every query.
Decoding is left out: pictures are ready in memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from cprd_pipeline.corpus.reader import Split
from cprd_pipeline.distillation.batches import PairSampler, PositivePairs
from cprd_pipeline.distillation.knowledge import TeacherKnowledge
from cprd_pipeline.distillation.learner import Learner
from cprd_pipeline.distillation.meeting import CandidateDraw, Meetings
from cprd_pipeline.distillation.pair_table import PairTableBuilder
from cprd_pipeline.distillation.processes import Processes
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.models.dual_encoder import DualEncoder
from tests.tiny_encoders import WORDS, tiny_tokenizer

IMAGES, EACH, CANDIDATES, SIZE = 20_000, 2, 64, 64
BANK: dict[str, Any] = {"objective": "cprd", "items": "bank", "bank": {"candidates": 64}}
ARMS: dict[str, dict[str, Any]] = {
    "itc": {"objective": "itc"},
    "cprd, in_batch": {"objective": "cprd"},
    "cprd, bank of 64": BANK,
    "cprd, bank of 64, 256 easy": BANK | {"cprd": {"easy_negatives": "bank"}},
    "cprd, bank of 64, 256 easy, momentum": BANK
    | {"cprd": {"easy_negatives": "bank"}, "bank": {"candidates": 64, "features": "momentum"}},
    "cprd, encode 4": {"objective": "cprd", "items": "encode", "encode": {"candidates": 4}},
    "kl, in_batch": {"objective": "kl"},
}
"""What differs from the contrastive loss alone."""


def student() -> DualEncoder:
    """A CLIP of 12 million parameters."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    text = shape | {"num_hidden_layers": 6, "vocab_size": 8192, "max_position_embeddings": 32, "pad_token_id": 0}
    vision = shape | {"num_hidden_layers": 6, "image_size": SIZE, "patch_size": 8}
    text |= {"bos_token_id": 1, "eos_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=256))
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return DualEncoder(model, tiny_tokenizer(), processor, torch.device("cpu"), torch.float32)


def knowledge() -> TeacherKnowledge:
    """Random candidates of every query, with random scores."""
    random, captions = np.random.default_rng(0), IMAGES * EACH
    asking_images = np.repeat(np.arange(IMAGES), CANDIDATES), random.integers(0, captions, IMAGES * CANDIDATES)
    asking_captions = random.integers(0, IMAGES, captions * CANDIDATES), np.repeat(np.arange(captions), CANDIDATES)
    images, told = (np.concatenate(side) for side in zip(asking_images, asking_captions, strict=True))
    building = PairTableBuilder(IMAGES, captions)
    building.count(images)
    building.place(images, told, random.normal(0, 3, len(images)).astype(np.float32), np.zeros(len(images), dtype=np.bool_))
    cutoffs = np.zeros(IMAGES, dtype=np.float32), np.zeros(captions, dtype=np.float32)
    return TeacherKnowledge(building.finish(), None, *cutoffs, np.arange(IMAGES), np.arange(captions), "random")


class Taken(NamedTuple):
    """CPU seconds of a step, those of them that read rankings, and how many pictures it encoded."""

    seconds: float
    reading: float
    pictures: int


class Arm:
    """One way of training; the same pictures whatever rows are asked for."""

    def __init__(self, changes: dict[str, Any], batch: int, told: TeacherKnowledge) -> None:
        rankings = () if changes["objective"] == "itc" else ("rankings",)
        values = {"rankings": rankings, "batch_size": batch, "distillation_from_step": 0, "learning_rate": 1e-4, **changes}
        self.settings = DistillSettings.model_validate(values)
        rows = np.arange(IMAGES * EACH)
        split = Split("train", np.arange(IMAGES), rows, np.stack([rows // EACH, rows], axis=1))
        positives = PositivePairs(split, len(rows))
        random = np.random.default_rng(1)
        texts = [" ".join(random.choice(WORDS, int(length))) for length in random.integers(8, 14, len(rows))]
        knows = None if changes["objective"] == "itc" else told
        draw = None
        if self.settings.items == "encode":
            draw = CandidateDraw(self.settings.encode, told, positives, 0)
        self.meetings = Meetings(PairSampler(split, batch, 0), draw)
        corpus: Any = SimpleNamespace(texts=texts)
        self.learner = Learner(self.settings, student(), corpus, knows, positives, Processes(), Path(tempfile.mkdtemp()))
        self.learner.train()
        self.step = 0
        self.reading = 0.0
        self._clock()

    def _clock(self) -> None:
        """Time what takes the rankings: lists, what the bank is asked for, and the batch with candidates that are drawn for it."""
        asked: list[tuple[Any, str]] = [(self.learner._listing, "of"), (self.meetings, "at")]
        if self.learner._banks:
            asked.append((self.learner._banks, "items"))
        for owner, name in asked:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any) -> Any:
            start = time.process_time()
            found = call(*values)
            self.reading += time.process_time() - start
            return found

        return timed

    def take(self) -> Taken:
        """The next step, its lists included."""
        self.reading, start = 0.0, time.process_time()
        meeting = self.meetings.at(self.step)
        encoded = len(meeting.encoded_images.rows)
        self.learner.step(self.step, meeting, torch.randn(1, 3, SIZE, SIZE).expand(encoded, -1, -1, -1))
        self.step += 1
        return Taken(time.process_time() - start, self.reading, encoded)


def peak_megabytes() -> int:
    """Largest resident memory of this process; unlike ru_maxrss not that of its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--without", nargs="*", default=[], choices=ARMS, help="arms to leave out")
    parser.add_argument("--arm", help="take three steps of this arm alone and print its peak memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.arm:
        arm = Arm(ARMS[options.arm], options.batch, knowledge())
        before = peak_megabytes()
        for _ in range(3):
            arm.take()
        print(json.dumps({"before": before, "after": peak_megabytes()}))
        return
    told = knowledge()
    arms = {name: Arm(changes, options.batch, told) for name, changes in ARMS.items() if name not in options.without}
    steps: dict[str, list[Taken]] = {name: [] for name in arms}
    for number in range(options.rounds + 1):
        for name, arm in arms.items():
            taken = arm.take()
            if number:  # The first round fills caches and banks.
                steps[name].append(taken)
    parameters = sum(weight.numel() for weight in arms["itc"].learner.student.model.parameters())
    print(f"\n{parameters / 1e6:.1f} million parameters, batch {options.batch}, {options.rounds} rounds, one thread, CPU time\n")
    print("| arm | pictures a step | ms a step, median | x ITC, median of rounds | ms reading | of the step | peak MB | x ITC |")
    print("|---|---|---|---|---|---|---|---|")
    peaks = {}
    for name, own in steps.items():
        command = [sys.executable, "-m", "tests.benchmarks.distill_step", "--batch", str(options.batch), "--arm", name]
        peaks[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["after"]
        ratio = statistics.median(ours.seconds / plain.seconds for ours, plain in zip(own, steps["itc"], strict=True))
        reading = statistics.median(step.reading for step in own)
        share = statistics.median(step.reading / step.seconds for step in own)
        print(
            f"| {name} | {own[-1].pictures} | {1000 * statistics.median(step.seconds for step in own):.0f} | {ratio:.3f} "
            f"| {1000 * reading:.1f} | {share:.2%} | {peaks[name]} | {peaks[name] / peaks['itc']:.2f} |"
        )


if __name__ == "__main__":
    main()
