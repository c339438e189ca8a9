"""Where updates run."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """Return the device with a name; ``auto`` is the GPU if there is one, else the CPU.

    Raises:
        ValueError: the name is unknown, or the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; use 'auto', 'cpu' or 'cuda'") from error
    if device.type == "meta":
        raise ValueError("device 'meta' holds no numbers; use 'auto', 'cpu' or 'cuda'")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} is not available on this machine ({reason}); use 'auto' or 'cpu'") from error
    return device
