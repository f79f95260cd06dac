"""Time of a mining run whose vectors are all there: 25,000 captions x 5,000 images, 256-d, k=64, both directions.

The candidates are removed before each run, so that everything but the embedding is done again: fingerprint, search, Parquet.
Once with brought vectors, once with an encoder folder of CLIP ViT-B/32's size (605 MB of random weights) whose vectors are in
the cache; its first run digests the weights, the next ones remember. `beside` is what the run takes beyond the search. CPU
seconds say more than the clock on a machine that is shared.

Run: `OMP_NUM_THREADS=1 python tests/benchmarks/mining_second_run.py [runs]`
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from cprd_pipeline.corpus.reader import Corpus
from cprd_pipeline.mining.settings import MineSettings
from cprd_pipeline.models.embedding_cache import EmbeddingCache
from cprd_pipeline.models.encoder_identity import encoder_fingerprint
from cprd_pipeline.store.fingerprint import bytes_digest
from cprd_pipeline.store.folder import cache_folder
from cprd_pipeline.store.output import OutputWriter
from cprd_pipeline.store.schemas import CAPTIONS, IMAGES, POSITIVES

# The command, and the CPU seconds of its search on the last line.
COMMAND = """
import time
from cprd_pipeline.cli import main
from cprd_pipeline.mining.candidates import Miner
search, spent = Miner.part, []
def part(*arguments):
    start = time.process_time()
    table = search(*arguments)
    spent.append(time.process_time() - start)
    return table
Miner.part = part
try:
    main()
finally:
    print(sum(spent))
"""
CAPTIONS_COUNT, IMAGES_COUNT, WIDTH, K, PARAMETERS = 25_000, 5_000, 256, 64, 151_277_313


def write_corpus(folder: Path, images: int, captions: int) -> Corpus:
    """As many captions for each image; no pictures, since none is decoded."""
    writer = OutputWriter(folder, "corpus", {"image_root": "."}, {"source": "benchmark"})
    image_ids, caption_ids = [f"i{row}" for row in range(images)], [f"c{row}" for row in range(captions)]
    texts = [f"caption number {row} of some length" for row in range(captions)]
    digests = [[bytes_digest(name.encode()) for name in names] for names in (image_ids, texts)]
    sizes, paths = [224] * images, [f"{name}.jpg" for name in image_ids]
    columns = [image_ids, paths, [None] * images, digests[0], sizes, sizes, ["train"] * images]
    writer.write_table("images.parquet", pa.table(columns, schema=IMAGES))
    writer.write_table("captions.parquet", pa.table([caption_ids, texts, digests[1], ["train"] * captions], schema=CAPTIONS))
    owners = [image_ids[row * images // captions] for row in range(captions)]
    writer.write_table("positives.parquet", pa.table([owners, caption_ids], schema=POSITIVES))
    writer.finish()
    return Corpus(folder)


def write_vectors(folder: Path, corpus: Corpus) -> list[str]:
    """The two encoders, their vectors at hand; names for the setting."""
    rng = np.random.default_rng(0)
    brought, encoder = folder / "brought", folder / "encoder"
    for path in (brought, encoder):
        path.mkdir()
    weights = {str(part): rng.standard_normal(PARAMETERS // 100, dtype=np.float32) for part in range(100)}
    save_file(weights, encoder / "model.safetensors")
    (encoder / "config.json").write_text('{"model_type": "clip"}')
    cache = cache_folder() / "embeddings" / encoder_fingerprint(str(encoder), "float32")
    for side, items in (("images", corpus.images), ("captions", corpus.captions)):
        vectors = rng.standard_normal((len(items), WIDTH), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(brought / f"{side}.npy", vectors)
        (brought / f"{side}.ids.txt").write_text("\n".join(items.ids))
        for start in range(0, len(items), 8192):
            EmbeddingCache(cache / side).add(items.digests[start : start + 8192], vectors[start : start + 8192])
    return [f"embeddings:{brought}", str(encoder)]


def run(folder: Path, encoder: str) -> str:
    """Seconds of a run by the clock and of the processor."""
    settings = MineSettings(k=K, encoder=encoder, corpus=folder / "corpus", output=folder / "out", report=folder / "out.json")
    (folder / "mine.yaml").write_text(settings.model_dump_json())  # JSON is YAML
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [sys.executable, "-c", COMMAND, "mine", "--config", str(folder / "mine.yaml")]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    search_wall = json.loads((folder / "out.json").read_bytes())["seconds"]["searching"]
    search = float(output.splitlines()[-1])
    clock = f"clock {wall:.2f} s, search {search_wall:.2f}, beside {wall - search_wall:.2f}"
    return f"{clock}; CPU {cpu:.2f} s, search {search:.2f}, beside {cpu - search:.2f}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        os.environ["CPRD_CACHE"] = f"{name}/cache"
        for which in write_vectors(Path(name), write_corpus(Path(name) / "corpus", IMAGES_COUNT, CAPTIONS_COUNT)):
            for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
                print(f"{Path(which).name}: {run(Path(name), which)}", flush=True)
