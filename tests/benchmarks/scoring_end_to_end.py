"""How much of a run of `score-teacher` over real photographs is spent inside the teacher?

Run: `CPRD_TEST_DATA=<folder with photos/> python -m tests.benchmarks.scoring_end_to_end --workers 1`

1,000 photographs in Karpathy's layout, a BLIP of hidden size 256, 6 layers and 224 px with random weights, candidates of both
directions at random. The stage runs as a command would: prepared corpus, empty store, rankings in the end.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.corpus.prepare import run as prepare
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.corpus.settings import PrepareSettings
from cprd_pipeline.scoring.run import run
from cprd_pipeline.scoring.settings import ScoreSettings
from tests.pipeline.tiny_models import word_tokenizer
from tests.scoring.stub import write_candidates

IMAGES = 1000


def write_corpus(folder: Path, photos: Path) -> None:
    """The first photographs, all of one split."""
    content = json.loads((photos / "dataset_flickr8k.json").read_text(encoding="utf-8"))
    content["images"] = [{**image, "split": "train"} for image in content["images"][:IMAGES]]
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    source = {"annotations": folder / "dataset.json", "images": photos / "images"}
    settings = {"source": "karpathy", "karpathy": source, "output": folder / "corpus", "report": folder / "prepare.json"}
    prepare(PrepareSettings.model_validate(settings))


def write_teacher(folder: Path, texts: list[str]) -> None:
    """A BLIP that knows the captions' words."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(texts, 64)
    shared = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
    text = {**shared, "vocab_size": len(tokenizer), "encoder_hidden_size": 256, "initializer_range": 0.02}
    vision = {**shared, "image_size": 224, "patch_size": 16, "initializer_range": 0.02}
    ids = {"bos_token_id": 1, "pad_token_id": 0, "sep_token_id": 2, "eos_token_id": 2}
    model = BlipForImageTextRetrieval(BlipConfig(text_config={**text, **ids}, vision_config=vision))
    for part in (model, tokenizer, BlipImageProcessorPil(size={"height": 224, "width": 224})):
        part.save_pretrained(folder)


def main() -> None:
    """Prepare, score, and print where the time went."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CPRD_CACHE"] = str(folder / "cache")
        write_corpus(folder, Path(os.environ["CPRD_TEST_DATA"]) / "photos")
        write_teacher(folder / "blip", Corpus(folder / "corpus").texts)
        write_candidates(folder / "candidates", folder / "corpus", arguments.k, part=1000)
        places = {name: folder / name for name in ("corpus", "candidates", "rankings")}
        settings = ScoreSettings.model_validate(
            {
                "corpus": places["corpus"],
                "candidates": places["candidates"],
                "teacher": {"model": str(folder / "blip")},
                "output": places["rankings"],
                "report": folder / "report.json",
                "device": "cpu",
                "workers": arguments.workers,
            }
        )
        start = time.perf_counter()
        report = run(settings)
        whole = time.perf_counter() - start
    found = report.results
    inside = found["seconds_in"]
    print(f"{found['scored']:,} pairs of {found['images_encoded']:,} images in {whole:.1f} s, parts of the stage: {report.seconds}")
    print(f"seconds of the scoring loop: {inside}; inside the teacher {inside['teacher'] / whole:.1%} of the whole run")


if __name__ == "__main__":
    main()
