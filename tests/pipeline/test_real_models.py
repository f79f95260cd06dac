"""All stages with transformers' own CLIP and BLIP classes: tiny random weights, loaded by path as a download would be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoTokenizer, BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.corpus.images import ImageReader
from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining import run as mine
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.project import write_project
from cprd_pipeline.scoring import run as score
from cprd_pipeline.scoring.settings import ScoreSettings
from tests.pipeline.all_stages import run_all_stages
from tests.pipeline.tiny_models import karpathy_file, real_photographs, tiny_blip_teacher, tiny_clip_student

PICTURES, K = 200, 12


def corpora() -> list[str]:
    return ["generated", *(["photographs"] if os.environ.get("CPRD_TEST_DATA") else [])]


@pytest.fixture(params=corpora(), scope="module")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init --example coco` writes, with other pictures and models, after every stage has run once."""
    folder = tmp_path_factory.mktemp(request.param)
    write_project(folder, "coco")
    annotations, images = karpathy_file(folder, PICTURES) if request.param == "generated" else real_photographs()
    texts = [s["raw"] for image in json.loads(annotations.read_text())["images"] for s in image["sentences"]]
    tiny_clip_student(folder / "clip", texts)
    tiny_blip_teacher(folder / "blip", texts)
    fit(folder / "stages", annotations, images)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    assert run_all_stages(folder, "report")[-1] == "report"
    return folder


def fit(stages: Path, annotations: Path, images: Path) -> None:
    """Change what a user with a small corpus and models of their own would change."""
    files = {"paths": str(annotations), "images": str(images), "rename_splits": {"restval": "train"}}
    student = {"student": "clip", "batch_size": 16, "steps": 6, "warmup_steps": 2, "learning_rate": 1e-4}
    teacher = {"teacher": {"model": "blip", "dtype": "float32"}}
    changes = {
        "prepare": {"files": files, "max_images": PICTURES},
        "base_student": student,
        "mine": {"k": K},
        "mine_test": {"k": K},
        "score_teacher": teacher,
        "score_teacher_test": teacher,
        "distill": student | {"distillation_from_step": 0},
        "evaluate": {"rerank_depth": K, "folds": 10},
    }
    for stage, changed in changes.items():
        path = stages / f"{stage}.yaml"
        values = yaml.safe_load(path.read_text())
        values |= {"workers": 0} if "workers" in values else {}
        path.write_text(yaml.safe_dump(values | changed))


def settings(model: type, **values: object) -> object:
    return model.model_validate(values)


def rankings(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_query_has_its_candidates_in_the_teachers_order(project: Path) -> None:
    """One row a query of each direction, k candidates each, none of them a positive, scores descending."""
    corpus = Corpus(project / "data" / "corpus")
    train = corpus.split("train")
    rows = rankings(project / "data" / "rankings" / "1")
    assert len(rows) == len(train.images) + len(train.captions)
    for row in rows:
        assert len(row["candidate_ids"]) == K
        assert not set(row["candidate_ids"]) & set(row["positive_ids"])
        assert row["teacher_scores"] == sorted(row["teacher_scores"], reverse=True)
        assert row["positive_ids"]
        assert len(row["positive_ids"]) == len(row["positive_scores"]) == len(row["positive_similarities"])


def test_scores_equal_the_plain_transformers_call(project: Path) -> None:
    """A sample of pairs, each through one ordinary call of BlipForImageTextRetrieval."""
    corpus = Corpus(project / "data" / "corpus")
    model = BlipForImageTextRetrieval.from_pretrained(project / "blip").eval()
    tokenizer = AutoTokenizer.from_pretrained(project / "blip")
    processor = BlipImageProcessorPil.from_pretrained(project / "blip")
    rows = rankings(project / "data" / "rankings" / "1")
    draws = np.random.default_rng(0)
    with patched_root(project), ImageReader(corpus) as reader:
        for row in draws.choice(np.array(rows, dtype=object), 12, replace=False):
            picked = int(draws.integers(K))
            item, score = row["candidate_ids"][picked], row["teacher_scores"][picked]
            image, caption = (row["query_id"], item) if row["direction"] == "i2t" else (item, row["query_id"])
            pixels = processor(images=[reader.read(corpus.images.row_of[image])], return_tensors="pt")["pixel_values"]
            tokens = tokenizer([corpus.texts[corpus.captions.row_of[caption]]], return_tensors="pt")
            with torch.inference_mode():
                logits = model(tokens["input_ids"], pixels, attention_mask=tokens["attention_mask"], use_itm_head=True).itm_score[0]
            assert score == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


class patched_root:  # noqa: N801
    """Image paths of the corpus are relative to the project."""

    def __init__(self, project: Path) -> None:
        self._project, self._before = project, Path.cwd()

    def __enter__(self) -> None:
        os.chdir(self._project)

    def __exit__(self, *error: object) -> None:
        os.chdir(self._before)


def test_the_student_loads_in_a_fresh_process_without_this_package(project: Path) -> None:
    """Plain transformers, one call each for model, tokenizer and image processor."""
    program = (
        "import sys; from transformers import AutoModel, AutoTokenizer, AutoImageProcessor\n"
        "f = sys.argv[1]; m = AutoModel.from_pretrained(f); AutoTokenizer.from_pretrained(f)\n"
        "AutoImageProcessor.from_pretrained(f, backend='pil')\n"
        "assert 'cprd_pipeline' not in sys.modules; print(type(m).__name__)"
    )
    command = [sys.executable, "-c", program, str(project / "data" / "students" / "cprd")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "CLIPModel"


def test_the_counts_of_the_reports_add_up(project: Path) -> None:
    """Requested = duplicates + stored + scored, and every stage wrote its report."""
    report = json.loads((project / "data" / "reports" / "score_teacher.json").read_text())["results"]
    assert report["requested"] == report["duplicate"] + report["stored"] + report["scored"]
    metrics = json.loads((project / "data" / "reports" / "metrics.json").read_text())
    assert {"base", "cprd"} <= set(metrics)


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the working folder, with its own cache."""
    monkeypatch.setenv("CPRD_CACHE", str(project / "data"))
    monkeypatch.chdir(project)
    return project


def test_a_larger_k_and_a_second_round_buy_only_new_pairs(inside: Path) -> None:
    """Nothing that was scored is scored again; the report says how much that saved."""
    larger = {"k": K + 4, "output": "data/candidates/k12", "report": "data/reports/mine_k12.json"}
    mine.run(settings(MineSettings, **larger))
    again = {"candidates": "data/candidates/k12", "output": "data/rankings/k12", "report": "data/reports/score_k12.json"}
    first = json.loads(Path("data/reports/score_teacher.json").read_text())["results"]
    results = score.run(settings(ScoreSettings, teacher={"model": "blip"}, **again)).results
    assert results["stored"] == first["requested"] - first["duplicate"]
    assert 0 < results["scored"] < results["stored"]
    second = {"encoder": "data/students/cprd", "round": "2", "output": "data/candidates/2", "report": "data/reports/mine_2.json"}
    mine.run(settings(MineSettings, k=K, **second))
    ranked = {"candidates": "data/candidates/2", "output": "data/rankings/2", "report": "data/reports/score_2.json"}
    results = score.run(settings(ScoreSettings, teacher={"model": "blip"}, **ranked)).results
    assert results["stored"] > results["scored"]
