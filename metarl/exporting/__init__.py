"""Exporting: policies as files of ONNX or of ``torch.export``, which act without metarl."""

from __future__ import annotations

from metarl.exporting.export import export

__all__ = ["export"]
