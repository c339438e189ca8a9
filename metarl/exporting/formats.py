"""The formats of exported networks: how they are written, read again and run."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metarl.exporting.networks import ACTION, STATE, Arrays, ExportedNetwork
from metarl.files import refuse_existing, writing

FORMATS = {".onnx": "ONNX", ".pt2": "torch.export"}
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_ENVIRONMENTS = (1, 13)  # with which a file is tried
_TOLERANCE = 1e-4
Run = Callable[[Arrays], Mapping[str, NDArray[Any]]]


def refuse_file(path: Path) -> None:
    """Refuse a file that cannot be written, before any long work.

    Raises:
        ValueError: its name has another suffix, its extra is not installed, or it exists.
    """
    if path.suffix.lower() not in FORMATS:
        known = " or ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise ValueError(f"the exported policy {str(path)!r} cannot be written; its name has to end in {known}")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if path.suffix.lower() == ".onnx" and missing:
        raise ValueError(
            f"a .onnx file needs the package {missing[0]}, which is not installed; install the extra [export], as in "
            "pip install 'metarl-suite[export]', or write a .pt2"
        )
    refuse_existing(path)


def write_network(path: Path, network: ExportedNetwork, facts: Mapping[str, str]) -> None:
    """Write a network into a new file, completely or not at all, and only if the file acts as the policy does.

    Args:
        path: ``.onnx`` or ``.pt2``; folders that are missing are made.
        network: on the CPU.
        facts: what is said of it in the file.

    Raises:
        ValueError: see ``refuse_file``; the file cannot be written, torch cannot export the network, or what was
            exported acts otherwise.
    """
    refuse_file(path)
    suffix = path.suffix.lower()
    twice = sorted({*network.inputs} & {*_onnx_outputs(network)})
    if suffix == ".onnx" and twice:
        raise ValueError(
            f"the observation has the key {twice[0]!r}, which is the name of an output, and ONNX has one namespace; "
            "rename it in the environment, or write a .pt2"
        )
    try:
        with _quiet():
            content = _onnx(network, facts) if suffix == ".onnx" else _pt2(network, facts)
            run = _runner(content, suffix, network)
    except Exception as error:  # layers of one's own can fail in many ways
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"torch cannot export this policy to {FORMATS[suffix]} ({type(error).__name__}: {reason}); its layers may "
            "use only operations of torch, and no branches that depend on numbers"
        ) from error
    _refuse_different(network, run)
    with writing(path, "the exported policy") as beside:
        beside.write_bytes(content)


def _program(network: ExportedNetwork) -> torch.export.ExportedProgram:
    # Two environments: torch takes a size of 1 for one that never changes.
    examples = network.examples(2, np.random.default_rng(0))
    given = tuple(torch.as_tensor(examples[name]) for name in network.inputs)
    batch = torch.export.Dim("environments")
    with torch.no_grad():
        return torch.export.export(network, given, dynamic_shapes=(tuple({0: batch} for _ in given),), strict=False)


def _pt2(network: ExportedNetwork, facts: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    names = {"inputs": ",".join(network.inputs), "outputs": ",".join(network.outputs)}
    extra = dict.fromkeys((*facts, *names), "") | dict(facts) | names
    torch.export.save(_program(network), file, extra_files=extra)
    return file.getvalue()


def _onnx(network: ExportedNetwork, facts: Mapping[str, str]) -> bytes:
    exported = torch.onnx.export(
        _program(network),
        input_names=list(network.inputs),
        output_names=_onnx_outputs(network),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    # torch names values after its operations, as "mean", which an output may be called too.
    graph = exported.model.graph
    inner = [value for node in graph for value in node.outputs if value not in graph.outputs]
    for number, value in enumerate(inner):
        value.name = f"value_{number}"
    proto = exported.model_proto
    for name, fact in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, fact
    content: bytes = proto.SerializeToString()
    return content


def _onnx_outputs(network: ExportedNetwork) -> list[str]:
    """Return the names of outputs; ONNX has one namespace, so the state that comes out is ``next_state``."""
    return [f"next_{name}" if name == STATE else name for name in network.outputs]


def _runner(content: bytes, suffix: str, network: ExportedNetwork) -> Run:
    """Return a function that runs the file's network on named arrays."""
    if suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return lambda given: dict(zip(network.outputs, session.run(None, given), strict=True))
    module = torch.export.load(io.BytesIO(content)).module()

    def run(given: Arrays) -> Mapping[str, NDArray[Any]]:
        with torch.no_grad():
            found = module(*(torch.as_tensor(given[name]) for name in network.inputs))
        return {name: part.numpy() for name, part in zip(network.outputs, found, strict=True)}

    return run


def _refuse_different(network: ExportedNetwork, run: Run) -> None:
    """Raise a ``ValueError`` if what was exported acts otherwise than the policy on random observations."""
    names = (ACTION, STATE) if STATE in network.outputs else (ACTION,)
    for number, count in enumerate(_ENVIRONMENTS):
        given = network.examples(count, np.random.default_rng(1 + number))
        found = run(given)
        for name, expected in zip(names, network.expected(given), strict=True):
            got = found[name]
            if got.shape != expected.shape:
                fault = f"the shape {got.shape} and not {expected.shape}"
            elif got.dtype.kind == "f":
                difference = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
                if (difference <= _TOLERANCE).all():
                    continue
                fault = f"numbers that differ by up to {np.nanmax(difference):.2g}"
            # Of choices that are as likely as each other, rounding decides.
            elif (got == expected).mean() > 0.8:
                continue
            else:
                fault = "other choices"
            raise ValueError(
                f"the exported network gives the {name} {fault} beside the policy's own, so nothing was written; does "
                "a layer of the policy keep a state, draw random numbers, or depend on the number of observations?"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own messages off the terminal."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
