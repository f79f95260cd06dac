"""Peak memory of the whole stage `mine`: 1,000,000 captions x 200,000 images, brought vectors of 64 numbers, an IVF index.

Beyond the search itself (`mining_ivf.py`) that is the corpus with its ids and texts, both sides' vectors, the table of each part,
and the report. Default settings but for the index; the corpus is written by another process than the one that is measured.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.mining_memory`
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cprd_pipeline.mining.run import run
from cprd_pipeline.mining.settings import MineSettings
from tests.benchmarks.mining_ivf import CAPTIONS, IMAGES, K, peak_mb, write_vectors
from tests.benchmarks.mining_second_run import write_corpus


def mine(folder: Path) -> None:
    """The stage; prints what it took."""
    files = {"corpus": folder / "corpus", "output": folder / "out", "report": folder / "out.json"}
    report = run(MineSettings(k=K, encoder=f"embeddings:{folder / 'vectors'}", index={"kind": "ivf_flat"}, **files))
    recalls = {direction: found["recall"] for direction, found in report.results["indexes"].items()}
    print(f"peak {peak_mb():.0f} MB, recall {recalls}, seconds {report.seconds}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        mine(Path(sys.argv[1]))
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        os.environ["CPRD_CACHE"] = f"{name}/cache"
        corpus, vectors = write_corpus(Path(name) / "corpus", IMAGES, CAPTIONS), Path(name) / "vectors"
        vectors.mkdir()
        write_vectors(vectors)
        for side, items in (("images", corpus.images), ("captions", corpus.captions)):
            (vectors / f"{side}.ids.txt").write_text("\n".join(items.ids))
        subprocess.run([sys.executable, "-m", "tests.benchmarks.mining_memory", name], check=True)
