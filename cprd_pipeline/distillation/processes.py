"""The processes that train one student together, as torchrun starts them; one process alone is the same with a size of one.

Each process encodes its slice of the batch, all features are gathered, every process computes the whole loss, and each
brings the gradients of its own features back through the towers. So gradients are summed, not averaged, and there is no
wrapper around the model (DistributedDataParallel): its averaging, its unused-parameter rules and its one forward pass a
step fit neither features that are encoded again (micro-batches) nor frozen towers, adapters and a loss over everything.

Shape suffixes: N items of all processes, D width.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from cprd_pipeline.errors import SettingsError

_PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: they do while the leading one writes a checkpoint, on a slow disk for long."""


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Args:
        rank: Number of this one.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and shows bars."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process' slice of so many items; the slices follow each other and differ by at most one item."""
        bounds = [count * number // self.size for number in range(self.size + 1)]
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def gather(self, mine: Float[Tensor, "n D"], count: int) -> Float[Tensor, "N D"]:
        """The rows of all processes in order, without gradients.

        Args:
            mine: The rows of this process' slice.
            count: N.
        """
        if self.size == 1:
            return mine.detach()
        longest = -(-count // self.size)
        padded = mine.detach().new_zeros(longest, mine.shape[1])
        padded[: len(mine)] = mine.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        slices = [Processes(rank, self.size).part(count) for rank in range(self.size)]
        return torch.cat([part[: of.stop - of.start] for part, of in zip(parts, slices, strict=True)])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size == 1 or not tensors:
            return
        # One message: hundreds of small ones take longer to start than to send.
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The leading process' numbers, everywhere; the others pass as many of their own."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(list(values), dtype=torch.float64, device=device)
        distributed.broadcast(shared, src=0)
        return [float(value) for value in shared.tolist()]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def join_processes(batch_size: int, device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, for the length of the block; without torchrun there is one.

    Args:
        batch_size: Of the whole run, to be shared evenly.
        device: Of this process: `device_of_process` chose it.

    Raises:
        SettingsError: The batch cannot be shared evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    if batch_size % size:
        raise SettingsError(
            f"batch_size is {batch_size}, with {size} processes",
            expected="a batch that the processes share evenly: batch_size counts the pairs of all of them",
            do=f"set batch_size to {batch_size // size * size or size}",
        )
    if device.type == "cuda":
        # Before anything is sent: NCCL would open every process' messages on the first GPU.
        own = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(own)
        distributed.init_process_group("nccl", device_id=own, timeout=_PATIENCE)
    else:
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def device_of_process(choice: str) -> str:
    """The device setting of this process: with torchrun each takes the GPU of its number.

    Raises:
        SettingsError: Several processes are told to take one GPU.
    """
    number = os.environ.get("LOCAL_RANK")
    if number is None:
        return choice
    if choice.startswith("cuda:") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError(
            f"device is {choice}, for several processes", expected="auto, cuda or cpu", do="each takes the GPU of its number then"
        )
    return f"cuda:{number}" if choice in ("auto", "cuda") and torch.cuda.is_available() else choice
