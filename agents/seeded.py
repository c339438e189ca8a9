"""Random initial weights from a separate generator, independent of what other threads draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_WITH_GENERATOR = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.random_,
    torch.Tensor.bernoulli_,
    torch.Tensor.exponential_,
    torch.Tensor.cauchy_,
    torch.Tensor.log_normal_,
    torch.Tensor.geometric_,
    torch.rand,
    torch.randn,
    torch.randint,
    torch.randperm,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    nn.init.uniform_,
    nn.init.normal_,
    nn.init.trunc_normal_,
    nn.init.xavier_uniform_,
    nn.init.xavier_normal_,
    nn.init.kaiming_uniform_,
    nn.init.kaiming_normal_,
    nn.init.orthogonal_,
    nn.init.sparse_,
}
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}


class Seeded(TorchFunctionMode):
    """Makes torch draw from a separate generator, in this thread, in all calls without an explicit generator.

    The numbers are those of the global generator after ``torch.manual_seed(seed)``; that one does not change.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a torch function with the generator."""
        kwargs = kwargs or {}
        if func in _LIKE and isinstance(args[0], Tensor) and args[0].device.type == "cpu":
            options = {"dtype": args[0].dtype, **kwargs}
            options.pop("memory_format", None)
            return _LIKE[func](args[0].shape, generator=self._generator, **options)
        if func in _WITH_GENERATOR and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator}
        return func(*args, **kwargs)
