"""Another device without a GPU: its tensors say that they lie elsewhere, and hold numbers of the CPU.

What mixes devices fails as on a GPU, and what does not gives the CPU's numbers. A GPU's kernels and its precision are not tried.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# A device that every build of torch knows by name.
ELSEWHERE = torch.device("meta")

_aten = torch.ops.aten
# A GPU's tensors may be indexed by those of the CPU.
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}
_MOVING = {_aten._to_copy.default, _aten.copy_.default}


class MixedDevicesError(RuntimeError):
    """An operation was given tensors of two devices."""


class Away(Tensor):
    """A tensor on the other device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Away":
        """Of a tensor of the CPU, whose memory it shares."""
        shape = (inner.size(), inner.stride(), inner.storage_offset())
        made = Tensor._make_wrapper_subclass(
            cls, shape[0], strides=shape[1], storage_offset=shape[2], dtype=inner.dtype, device=ELSEWHERE
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As the mode does, for what autograd calls outside of it."""
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Torch refuses it of subclasses."""
        found = self.detach()
        assert isinstance(found, Away)
        return found.inner.tolist()


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Away)]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if away and func not in _MOVING:
        _refuse_mixed(func, args, tensors)
    goes_away = target == ELSEWHERE if target is not None else bool(away)
    if func is _aten.copy_.default:
        goes_away = isinstance(args[0], Away)
    if func is _aten._fused_sdp_choice.default:
        return 0
    here_args, here_kwargs = tree_map(_inner, (args, kwargs))
    if target == ELSEWHERE:
        here_kwargs["device"] = torch.device("cpu")
    found = func(*here_args, **here_kwargs)
    if not goes_away:
        return found
    # What works in place gives back the tensor that it was given.
    given = {id(tensor.inner): tensor for tensor in away}
    return tree_map(lambda value: given.get(id(value), Away(value)) if isinstance(value, Tensor) else value, found)


def _refuse_mixed(func: Any, args: Any, tensors: Sequence[Tensor]) -> None:
    # Numbers without a dimension go anywhere.
    here = [tensor for tensor in tensors if not isinstance(tensor, Away) and tensor.dim()]
    if func in _INDEXING:
        if not isinstance(args[0], Away):
            raise MixedDevicesError(f"{func}: the CPU's tensor is indexed by one of the other device")
        here = [tensor for tensor in here if any(tensor is value for value in args[2:])]
    if here:
        raise MixedDevicesError(f"{func}: the other device, and the CPU's {[tuple(tensor.shape) for tensor in here]}")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


def move_away(model: nn.Module) -> None:
    """Parameters and buffers of a model, in place."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = nn.Parameter(Away(weight.detach()), requires_grad=weight.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Away(buffer)


@contextmanager
def another_device() -> Iterator[None]:
    """While the block runs, the other device is there."""
    made: Callable[..., Tensor] = torch.tensor
    with pytest.MonkeyPatch.context() as patch:
        # It copies its numbers to the device without asking anybody.
        patch.setattr(torch, "tensor", lambda *args, device=None, **kwargs: made(*args, **kwargs).to(device or "cpu"))
        # Operations that are made of others would come whole in inference mode: it only leaves gradients out here.
        patch.setattr(torch.inference_mode, "__enter__", _leave_gradients_out)
        patch.setattr(torch.inference_mode, "__exit__", _gradients_as_before)
        with _Mode():
            yield


def _leave_gradients_out(mode: Any) -> None:
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _gradients_as_before(mode: Any, *_: object) -> None:
    torch.set_grad_enabled(mode.before)
