"""BLIP's matching head: the packed teacher against what a user would run instead, by CPU seconds and by counted FLOPs.

Run: `OMP_NUM_THREADS=1 python -m tests.benchmarks.blip_scoring`

Contenders, interleaved in one run, BLIP-base's shape with random weights:
- `plain`: one call of transformers' BlipForImageTextRetrieval for each pair, padded to 35 tokens. All calls cost the same, so a
  few are timed and the time is scaled to all captions.
- `loop`: the published evaluation: the image once, its embeddings repeated, captions padded to 35, 32 at a time.
- `ours`: `encode_images` and `score_groups`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessorPil

from cprd_pipeline.models.blip import BlipTeacher, BlipText
from cprd_pipeline.models.captions import Caption
from tests.pipeline.tiny_models import word_tokenizer

LONGEST, LOOP_BATCH, PLAIN_TIMED = 35, 32, 4
WIDTH, INNER, LAYERS, HEADS, PATCH, VOCABULARY = 768, 3072, 12, 12, 16, 30_524


def build(size: int) -> BlipForImageTextRetrieval:
    """BLIP-base of a picture size; a spread of 0.02, since by default the vision tower ignores the picture."""
    torch.manual_seed(0)
    shared = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    vision = {**shared, "image_size": size, "patch_size": PATCH, "initializer_range": 0.02}
    text = {**shared, "vocab_size": VOCABULARY, "encoder_hidden_size": WIDTH, "initializer_range": 0.02}
    return BlipForImageTextRetrieval(BlipConfig(vision_config=vision, text_config=text, initializer_range=0.02)).eval()


def captions(count: int) -> list[torch.Tensor]:
    """Token ids of random captions, 8 to 35 tokens, 12.5 on average, as COCO's are."""
    draws = np.random.default_rng(count)
    lengths = np.clip(np.round(8 + draws.gamma(1.6, 2.8, count)), 8, LONGEST).astype(int)
    return [torch.from_numpy(draws.integers(1000, VOCABULARY - 2, length)) for length in lengths]


def padded(texts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, [N, 35]."""
    ids = torch.zeros(len(texts), LONGEST, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return ids, (torch.arange(LONGEST) < torch.tensor([len(text) for text in texts])[:, None]).long()


@torch.inference_mode()
def plain(model: BlipForImageTextRetrieval, pixels: torch.Tensor, texts: list[torch.Tensor]) -> torch.Tensor:
    """One whole call a pair."""
    ids, mask = padded(texts)
    rows = range(len(texts))
    return torch.cat([model(ids[row : row + 1], pixels, attention_mask=mask[row : row + 1]).itm_score for row in rows])


@torch.inference_mode()
def loop(model: BlipForImageTextRetrieval, pixels: torch.Tensor, texts: list[torch.Tensor]) -> torch.Tensor:
    """The published evaluation."""
    ids, mask = padded(texts)
    seen = model.vision_model(pixels).last_hidden_state
    scores = []
    for start in range(0, len(texts), LOOP_BATCH):
        batch, batch_mask = ids[start : start + LOOP_BATCH], mask[start : start + LOOP_BATCH]
        repeated = seen.repeat(len(batch), 1, 1)
        whole = torch.ones(repeated.shape[:2], dtype=torch.long)
        states = model.text_encoder(
            batch, attention_mask=batch_mask, encoder_hidden_states=repeated, encoder_attention_mask=whole
        ).last_hidden_state
        scores.append(model.itm_head(states[:, 0]))
    return torch.cat(scores)


def ours(teacher: BlipTeacher, pixels: torch.Tensor, texts: list[torch.Tensor]) -> torch.Tensor:
    """The adapter, as the scoring loop calls it."""
    [image] = teacher.encode_images([pixels[0]])
    return teacher.score_groups([(image, [BlipText(Caption(text, len(text)), torch.empty(0)) for text in texts])])


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    run()
    return time.process_time() - start


def flops(run: Callable[[], object]) -> float:
    """Counted by torch, attention as plain matrix products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return float(counter.get_total_flops())


def floor(size: int, texts: list[torch.Tensor]) -> float:
    """FLOPs that no exact method can save: nothing twice, nothing padded, the last layer for what the head reads."""
    seen = (size // PATCH) ** 2 + 1
    lengths = np.array([len(text) for text in texts])
    tokens, count = int(lengths.sum()), len(texts)
    square, attention = 2 * WIDTH * WIDTH, 4 * WIDTH
    block = 4 * square + 4 * WIDTH * INNER
    vision = LAYERS * (seen * block + attention * seen * seen) + 2 * (seen - 1) * PATCH * PATCH * 3 * WIDTH
    keys_values = LAYERS * 2 * seen * square
    # Self-attention's four and cross-attention's two products, the inner ones, and both attentions.
    layer = tokens * (6 * square + 4 * WIDTH * INNER) + attention * int((lengths**2).sum()) + attention * tokens * seen
    last = tokens * 2 * square + count * (4 * square + 4 * WIDTH * INNER) + attention * tokens + attention * count * seen
    return float(vision + keys_values + (LAYERS - 1) * layer + last + count * 4 * WIDTH)


def compare(size: int, count: int, rounds: int) -> str:
    """One row of the results table."""
    model, texts = build(size), captions(count)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    size_of = {"height": size, "width": size}
    expected = torch.cat([plain(model, pixels, texts[:PLAIN_TIMED]), loop(model, pixels, texts)[PLAIN_TIMED:]])
    counted = {
        "plain": flops(lambda: plain(model, pixels, texts[:PLAIN_TIMED])) * count / PLAIN_TIMED,
        "loop": flops(lambda: loop(model, pixels, texts)),
    }
    # After the others: it makes the model's weights views of fused ones, which changes no number but where they lie.
    teacher = BlipTeacher(
        build(size), word_tokenizer(["a"], 512), BlipImageProcessorPil(size=size_of), torch.device("cpu"), torch.float32
    )
    error = float((ours(teacher, pixels, texts) - (expected[:, 1] - expected[:, 0])).abs().max())
    counted["ours"] = flops(lambda: ours(teacher, pixels, texts))
    times: dict[str, list[float]] = {"plain": [], "loop": [], "ours": []}
    for _ in range(rounds):
        times["plain"].append(seconds(lambda: plain(model, pixels, texts[:PLAIN_TIMED])) * count / PLAIN_TIMED)
        times["loop"].append(seconds(lambda: loop(model, pixels, texts)))
        times["ours"].append(seconds(lambda: ours(teacher, pixels, texts)))
    middle = {name: statistics.median(values) for name, values in times.items()}
    spread = max(max(values) / min(values) for values in times.values())
    mean = np.mean([len(text) for text in texts])
    return (
        f"| {size} / {count} ({mean:.1f} tokens) | {middle['plain']:.1f} s | {middle['loop']:.2f} s | {middle['ours']:.2f} s "
        f"| {middle['plain'] / middle['ours']:.1f}x | {middle['loop'] / middle['ours']:.1f}x "
        f"| {counted['plain'] / counted['ours']:.1f}x | {counted['loop'] / counted['ours']:.1f}x "
        f"| {counted['ours'] / floor(size, texts):.3f} | {error:.1e} | {spread:.2f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=["224/64", "384/16", "384/64", "384/256"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| px / captions | plain | loop | ours | plain/ours | loop/ours | FLOPs | FLOPs | ours/floor | error | spread |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in arguments.cases:
        size, count = map(int, case.split("/"))
        print(compare(size, count, arguments.rounds), flush=True)
