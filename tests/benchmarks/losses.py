"""CPU time of the distillation losses, and of CPRD against its Q x N x N form.

Run: `OMP_NUM_THREADS=1 python tests/benchmarks/losses.py`
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cprd_pipeline.distillation.losses.cprd import cprd_loss
from cprd_pipeline.distillation.losses.itc import itc_loss
from cprd_pipeline.distillation.losses.kl import kl_loss
from cprd_pipeline.distillation.losses.listmle import listmle_loss
from cprd_pipeline.distillation.losses.listnet import listnet_loss
from cprd_pipeline.distillation.losses.lists import MASKED, TeacherLists, masked_softmax
from cprd_pipeline.distillation.losses.margin_mse import margin_mse_loss
from cprd_pipeline.distillation.losses.order import teacher_order
from cprd_pipeline.distillation.losses.ranknet import ranknet_loss
from cprd_pipeline.distillation.losses.shuffle import shuffle_keys, shuffle_teacher
from cprd_pipeline.distillation.losses.sigmoid import sigmoid_loss

QUERIES, LIST, SCALE, REPEATS = 1024, 256, 100.0, 7

Loss = Callable[[Tensor, TeacherLists], Tensor]


def wide_cprd(logits_QN: Tensor, lists: TeacherLists) -> Tensor:
    """CPRD with soft weights, the denominators by a mask of Q x N x N."""
    order_QN = teacher_order(lists.teacher_QN, lists.valid_QN)
    ranked_QN = logits_QN.masked_fill(~lists.listed_QN, MASKED).gather(1, order_QN)
    below_NN = torch.ones(ranked_QN.shape[1], ranked_QN.shape[1], dtype=torch.bool).triu()
    denominator_QN = ranked_QN[:, None, :].masked_fill(~below_NN, MASKED).logsumexp(2)
    easy_Q1 = logits_QN.masked_fill(~lists.easy_QN, MASKED).logsumexp(1, keepdim=True)
    weights_QN = masked_softmax(lists.teacher_QN, lists.listed_QN, 4.0) * lists.valid_QN
    terms_QN = torch.logaddexp(denominator_QN, easy_Q1) - ranked_QN
    return (weights_QN.gather(1, order_QN) * terms_QN).sum() / len(logits_QN)


RIVALS: dict[str, Loss] = {
    "CPRD, soft": lambda logits, lists: cprd_loss(logits, lists, "soft", 4.0),
    "KL": lambda logits, lists: kl_loss(logits, lists, 4.0),
    "MarginMSE": lambda logits, lists: margin_mse_loss(logits, lists, 1.0),
    "ListNet": lambda logits, lists: listnet_loss(logits, lists, 1.0),
    "ListMLE": listmle_loss,
    "RankNet": lambda logits, lists: ranknet_loss(logits, lists, "equal"),
}
CONTRASTIVE: dict[str, Loss] = {
    "ITC": lambda logits, lists: itc_loss(logits, torch.zeros_like(lists.listed_QN)),
    "sigmoid": lambda logits, lists: sigmoid_loss(logits, torch.zeros_like(lists.listed_QN)),
}


def random_batch(queries: int, items: int, listed_share: float) -> tuple[Tensor, TeacherLists]:
    """Cosines and knowledge; what is not listed is an easy negative."""
    generator = torch.Generator().manual_seed(0)
    cosines = torch.rand(queries, items, generator=generator) * 2 - 1
    teacher = torch.randn(queries, items, generator=generator) * 3
    listed = torch.rand(queries, items, generator=generator) < listed_share
    return cosines, TeacherLists(teacher, listed, listed & (teacher > 0), ~listed)


def step_seconds(loss: Loss, cosines: Tensor, lists: TeacherLists) -> float:
    """CPU seconds of forward and backward; wall-clock time would measure the neighbours of a shared machine."""
    leaf = cosines.clone().requires_grad_()
    start = time.process_time()
    loss(leaf * SCALE, lists).backward()
    return time.process_time() - start


def saved_mib(loss: Loss, cosines: Tensor, lists: TeacherLists) -> float:
    """What the forward pass keeps for the backward pass."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = loss(cosines.clone().requires_grad_() * SCALE, lists)
    del kept
    return sum(storages.values()) / 2**20


def measure(queries: int, items: int, listed_share: float, losses: dict[str, Loss]) -> dict[str, list[float]]:
    """Print a row for each loss; rounds go through all of them, so that a busy spell meets all.

    Returns:
        Seconds of each by round; a first round that warms up is left out.
    """
    cosines, lists = random_batch(queries, items, listed_share)
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(REPEATS + 1):
        for name, loss in losses.items():
            seconds[name].append(step_seconds(loss, cosines, lists))
    print(f"Q={queries}, N={items}, {listed_share:.0%} listed")
    for name, loss in losses.items():
        measured = sorted(seconds[name][1:])
        kept = saved_mib(loss, cosines, lists)
        print(f"| {name} | {measured[0] * 1e3:.2f} | {measured[len(measured) // 2] * 1e3:.2f} | {kept:.1f} |")
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Print tables and the cost of the control."""
    seconds = measure(QUERIES, LIST, 1.0, {**RIVALS, "CPRD, soft, Q x N x N": wide_cprd})
    ratios = [wide / fast for wide, fast in zip(seconds["CPRD, soft, Q x N x N"], seconds["CPRD, soft"], strict=True)]
    print(f"CPRD is {sorted(ratios)[len(ratios) // 2]:.0f} times faster ({min(ratios):.0f}-{max(ratios):.0f} by round)")
    measure(QUERIES, QUERIES, LIST / QUERIES, CONTRASTIVE | RIVALS)
    measure(64, 64, 0.5, CONTRASTIVE | RIVALS)
    _, lists = random_batch(QUERIES, LIST, 1.0)
    rows = torch.arange(QUERIES).numpy()
    start = time.process_time()
    for step in range(REPEATS):
        shuffle_teacher(lists, shuffle_keys(0, step, 0, rows, np.broadcast_to(rows[:LIST], (len(rows), LIST))))
    print(f"shuffling {QUERIES} lists of {LIST}: {(time.process_time() - start) / REPEATS * 1e3:.1f} ms")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
