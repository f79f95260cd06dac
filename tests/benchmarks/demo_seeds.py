"""The demo's arms over several seeds, all with the settings of stages/: does distillation beat equally trained ITC?

Run after `make demo`, at the top of the checkout: `python tests/benchmarks/demo_seeds.py --seeds 0 1 2`.
Students of all arms share corpus, rankings, steps and regularisation; a seed sets the initial weights, the batches and the
augmentation. Prints a Markdown table of the test split's RSUM; `--split val` for tuning.
"""

import argparse
import statistics
from pathlib import Path

from cprd_pipeline.distillation.run import run as distill
from cprd_pipeline.distillation.settings import DistillSettings
from cprd_pipeline.evaluation.run import run as evaluate
from cprd_pipeline.evaluation.settings import EvaluateSettings
from cprd_pipeline.settings import load_settings

ARMS = {"ITC": "base_student", "CPRD": "distill", "KL": "distill_kl"}
WORK = Path("data/seeds")


def train(arm: str, seed: int, overrides: list[str]) -> str:
    """One student; its folder."""
    folder = WORK / f"{arm.lower()}-{seed}"
    own = [f"seed={seed}", f"output={folder}", f"report={folder}.json"]
    distill(load_settings(DistillSettings, Path("stages") / f"{ARMS[arm]}.yaml", [*overrides, *own]))
    return str(folder)


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    students = {f"{arm}-{seed}": train(arm, seed, options.overrides) for seed in options.seeds for arm in ARMS}
    values = {"students": students, "split": options.split, "rankings": None, "output": str(WORK / options.split)}
    values |= {"metrics": str(WORK / f"metrics-{options.split}.json"), "report": str(WORK / f"evaluate-{options.split}.json")}
    metrics = evaluate(EvaluateSettings.model_validate(values)).results["metrics"]
    print(f"| arm | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean | nDCG@10 i2t / t2i |")
    print(f"|---|{'---|' * (len(options.seeds) + 2)}")
    for arm in ARMS:
        rows = [metrics[f"{arm}-{seed}"] for seed in options.seeds]
        sums = [row["rsum"] for row in rows]
        ndcg = [statistics.mean(row[f"{direction}_ndcg10"] for row in rows) for direction in ("i2t", "t2i")]
        seeds = " | ".join(f"{value:.1f}" for value in sums)
        print(f"| {arm} | {seeds} | {statistics.mean(sums):.1f} | {ndcg[0]:.1f} / {ndcg[1]:.1f} |")


if __name__ == "__main__":
    main()
