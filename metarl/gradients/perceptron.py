"""The derivatives of a perceptron's meta-update, written out by hand: a row for each sample, without autograd.

A perceptron has layers l = 1..D with ``a_l = h_{l-1} W_l^T + b_l`` and ``h_l = phi_l(a_l)``; h_0 are the observations,
``a_D`` is the mean of a Gaussian or the logits of choices. Hidden layers are ``[row, width]``; the tensors of the last
layer are ``[output, row]``, since products with few columns are slow. Every tensor may have a leading task axis, each
task with its own parameters: ``...`` below stands for that axis or for nothing. Write s_l = phi_l'(a_l), psi_i for the
score (the derivative of log pi_i with respect to a_D), and R x for the derivative of x along a direction (V_l, c_l) of
the parameters (Pearlmutter 1994).

**Gradient** of a loss ``f(log pi_1, log pi_2, ...)``, from its derivatives f' and f'' (a vector and a matrix over the
rows, mostly diagonal) with respect to the samples' log-probabilities::

    delta_D = f' psi        e_l = delta_{l+1} W_{l+1}        delta_l = s_l e_l
    dW_l = delta_l^T h_{l-1}        db_l = sum_i delta_l

**Hessian-vector product** of that loss; ``tanh'' = -2 tanh tanh'`` and ``relu'' = 0``, hence t_l = h_l e_l or 0::

    R a_l = h_{l-1} V_l^T + c_l + R h_{l-1} W_l^T        R h_l = s_l R a_l        R h_0 = 0
    R delta_D = B R a_D        B = f' (derivative of psi with respect to a_D) + psi f'' psi^T
    R delta_l = s_l (R delta_{l+1} W_{l+1} + delta_{l+1} V_{l+1}) - 2 t_l R h_l
    R dW_l = R delta_l^T h_{l-1} + delta_l^T R h_{l-1}        R db_l = sum_i R delta_l

**If observations are few numbers**, there is less to compute for each row. With ``x = (h_0, 1)`` and
``U = (V_1, c_1)``, ``R h_1 = s_1 (x U^T)``, so three of the sums over rows are the direction times T or Q, which are
the same for all directions::

    T_jmk = sum_i delta_2ij x_im s_1ik        Q_mnk = sum_i x_im x_in s_1ik t_1ik
    (delta_2^T R h_1)_jk = sum_m T_jmk U_km
    R dU_km = (sum_i s_1ik (R delta_2 W_2)_ik x_im) + sum_j T_jmk V_2jk - 2 sum_n Q_mnk U_kn

**Fisher-vector product**: R a_D as above, then the gradient's equations with ``delta_D = B R a_D``, where B is now the
Fisher matrix of the distribution, weighted. If outputs and observations are few numbers, the first layer's part of both
is computed from S, the derivative of a_D with respect to a_1, and the passes stop above the first layer::

    R a_D,ia = ... + sum_mk x_im S_iak U_km        dU_km = sum_ia delta_D,ia S_iak x_im

A Gaussian's log_std is one more output, the same for every row, and has no derivative below its floor.

If only some parameters adapt, their rows of the Hessian need no delta below the lowest layer that adapts, and a
direction of them has ``R h_l = 0`` below that layer; what is zero or not needed is not computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents import Distribution, Gaussian, Policy, Second
from metarl.gradients.alignment import add_product, affine, product
from metarl.gradients.flat import named


class Allocator(Protocol):
    """Returns tensors to write into."""

    def __call__(self, tag: str, shape: Sequence[int], axes: int = 2) -> Tensor:
        """Return a tensor with a shape of which the last ``axes`` axes belong to one task; those before are tasks."""


class Weights:
    """A perceptron's parameters, or a direction or gradient of them: views into ``flat``, ``[..., parameter]``.

    Weights are ``[..., width, width before]``; biases are rows ``[..., 1, width]``; the last bias and log_std are
    columns ``[..., output, 1]``.

    Attributes:
        flat: the vector.
        counts: for each layer, whether its weight and its bias are among ``names``.
        log_std_counts: the same for log_std.
        lowest: index of the lowest layer with one of ``names``.

    Args:
        policy: a perceptron.
        vector: ``[..., parameter]``.
        names: of the parameters that count: a direction is zero elsewhere, and a gradient is computed only for them.
            None for all.
    """

    def __init__(self, policy: Policy, vector: Tensor, names: frozenset[str] | None = None) -> None:
        assert policy.layers is not None
        self.flat = vector
        parts = named(policy.shapes, vector)
        self.weights = [parts[layer.weight] for layer in policy.layers]
        self.transposed = [weight.mT for weight in self.weights]
        self.biases = [parts[layer.bias].unsqueeze(-2) for layer in policy.layers]
        self.last_bias = self.biases[-1].mT
        self.log_std = parts["log_std"].unsqueeze(-1) if "log_std" in parts else None
        among = parts.keys() if names is None else names
        self.counts = [(layer.weight in among, layer.bias in among) for layer in policy.layers]
        self.log_std_counts = "log_std" in among
        self.lowest = next((i for i, either in enumerate(self.counts) if any(either)), len(self.counts) - 1)

    def first_layer(self) -> Tensor:
        """Return a copy of U^T in the equations above: ``[..., input, width]``."""
        return torch.cat([self.transposed[0], self.biases[0]], dim=-2)


@dataclass
class Bend:
    """B of the equations above; subclasses add the part that depends on the distribution.

    Attributes:
        score: psi, ``[..., output, row]``, and the score of log_std; None if f'' is zero.
        second: the product with f'', as a function of a vector ``[..., row]``; None for zero.
    """

    score: tuple[Tensor, Tensor | None] | None
    second: Second | None

    def apply(self, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return B times tangents of the last layer ``[..., output, row]`` and of log_std (summed over rows)."""
        turned, turned_log_std = self._first(output, log_std)
        if self.second is not None:
            assert self.score is not None
            score, log_std_score = self.score
            moved = (score * output).sum(dim=-2, keepdim=True)
            if log_std_score is not None:
                assert log_std is not None
                moved += log_std.mT @ log_std_score
            moved = self.second(moved.squeeze(-2)).unsqueeze(-2)
            turned.addcmul_(score, moved)
            if log_std_score is not None:
                assert turned_log_std is not None
                turned_log_std += over_rows(log_std_score, moved)
        return turned, turned_log_std

    def _first(self, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


@dataclass
class GaussianBend(Bend):
    """B of a Gaussian.

    Attributes:
        precision: the part for the mean, each row's weight divided by std^2, ``[..., output, row]``.
        mixed: the part between mean and log_std, to be multiplied by -2, ``[..., output, row]``; None for zero.
        above: 1 where log_std is above its floor, else 0, ``[..., output, 1]``.
        log_std: the part for log_std, summed over rows, ``[..., output, 1]``.
    """

    precision: Tensor
    mixed: Tensor | None
    above: Tensor
    log_std: Tensor

    def _first(self, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, Tensor]:
        assert log_std is not None
        turned = output * self.precision
        if self.mixed is None:
            return turned, self.log_std * log_std
        turned.addcmul_(self.mixed, self.above * log_std, value=-2.0)
        crossed = (self.mixed * output).sum(dim=-1, keepdim=True)
        return turned, self.log_std * log_std - 2.0 * self.above * crossed


@dataclass
class ChoiceBend(Bend):
    """B of choices: ``scale (diag(p) - p p^T)`` for each of several choices.

    Attributes:
        scale: each row's weight, ``[..., 1, row]``.
        probs: p, ``[..., output, row]``.
        sizes: the number of outputs of each choice.
    """

    scale: Tensor
    probs: Tensor
    sizes: Sequence[int]

    def _first(self, output: Tensor, log_std: Tensor | None) -> tuple[Tensor, None]:
        turned = self.probs * output
        turned.addcmul_(self.probs, _over_choices(turned, self.sizes), value=-1.0)
        return turned.mul_(self.scale), None


def _over_choices(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return values ``[..., output, row]`` summed over the outputs of each choice, repeated for each of its outputs.

    A matrix product is avoided, since its last bit depends on whether several tasks are computed at once.
    """
    if len(sizes) == 1:
        return values.sum(dim=-2, keepdim=True)
    parts = torch.split(values, list(sizes), dim=-2)
    return torch.cat([part.sum(dim=-2, keepdim=True).expand_as(part) for part in parts], dim=-2)


class Head:
    """The distribution that a policy's last layer parametrises, and its derivatives."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._floor = policy.log_std_min

    def distribution(self, weights: Weights, output: Tensor) -> Distribution:
        """Return the distribution of ``output``, ``[..., output, row]``."""
        return self._policy.head(output.mT, None if weights.log_std is None else weights.log_std.mT)

    def score(self, weights: Weights, distribution: Distribution, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the score of the last layer and of log_std, ``[..., output, row]``."""
        score = distribution.score(actions)
        if weights.log_std is None:
            return score[0].mT.contiguous(), None
        return score[0].mT.contiguous(), score[1].mT * self._above_floor(weights)

    def cotangents(self, weights: Weights, derivatives: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return a gradient with respect to the distribution's parameters as one for the last layer and for log_std.

        The latter is summed over rows.

        Args:
            weights: of the policy.
            derivatives: ``[..., row, output]`` for each of the distribution's parameters.
        """
        if weights.log_std is None:
            return derivatives[0].mT, None
        return derivatives[0].mT, derivatives[1].mT.sum(dim=-1, keepdim=True) * self._above_floor(weights)

    def loss_bend(
        self,
        weights: Weights,
        distribution: Distribution,
        score: tuple[Tensor, Tensor | None],
        derivatives: tuple[Tensor, Second | None],
        delta: Tensor,
    ) -> Bend:
        """Return B of a loss, from its derivatives f' and f'' ``[..., row]`` and its delta_D."""
        first, second = derivatives
        first = first.unsqueeze(-2)
        kept = None if second is None else score
        if not isinstance(distribution, Gaussian):
            return self._choices(distribution, -first, kept, second)
        assert score[1] is not None
        above = self._above_floor(weights)
        return GaussianBend(
            *(kept, second),
            precision=-first * torch.exp(-2 * distribution.log_std).mT,
            mixed=delta,
            above=above,
            # The score of log_std is z^2 - 1.
            log_std=-2.0 * (over_rows(score[1], first) + above * first.sum(dim=-1, keepdim=True)),
        )

    def fisher_bend(self, weights: Weights, distribution: Distribution, row_weights: Tensor) -> Bend:
        """Return B of a Fisher-vector product, from the weight of each row, ``[..., row]``."""
        row_weights = row_weights.unsqueeze(-2)
        if not isinstance(distribution, Gaussian):
            return self._choices(distribution, row_weights, None, None)
        above = self._above_floor(weights)
        return GaussianBend(
            *(None, None),
            precision=row_weights * torch.exp(-2 * distribution.log_std).mT,
            mixed=None,
            above=above,
            log_std=2.0 * row_weights.sum(dim=-1, keepdim=True) * above,
        )

    def _choices(
        self,
        distribution: Distribution,
        scale: Tensor,
        score: tuple[Tensor, Tensor | None] | None,
        second: Second | None,
    ) -> ChoiceBend:
        (logits,) = distribution.parameters
        exponentials = torch.exp(logits - logits.amax(dim=-1, keepdim=True)).mT
        probs = exponentials / _over_choices(exponentials, self._policy.choices)
        return ChoiceBend(score, second, scale, probs, self._policy.choices)

    def _above_floor(self, weights: Weights) -> Tensor:
        assert weights.log_std is not None
        if self._floor is None:
            return torch.ones_like(weights.log_std)
        return torch.ge(weights.log_std, self._floor).to(weights.log_std.dtype)


@dataclass
class Trace:
    """The intermediate results of a block of rows at given parameters, named as in the equations above.

    Attributes:
        activations: phi_1 to phi_{D-1}.
        hidden: (h_0, 1) and h_1 to h_{D-1}.
        output: a_D.
        deltas: delta_l, ``[..., row, width]``, by layer counted from 0, from the lowest layer that adapts upwards. That
            of layer 0 is in temporary memory and may be overwritten.
        bends: t_l by layer counted from 0, from the lowest layer that adapts upwards; only those with phi'' not zero.
            Entries that ``FirstLayers`` has gathered are removed from ``deltas`` and ``bends``.
        bend: B.
        output_derivatives: S, for each output ``[..., width, row]``; only for Fisher-vector products.
    """

    activations: Sequence[type[nn.Module] | None]
    hidden: list[Tensor]
    output: Tensor
    deltas: dict[int, Tensor] = field(default_factory=dict)
    bends: dict[int, Tensor] = field(default_factory=dict)
    bend: Bend | None = None
    output_derivatives: list[Tensor] | None = None


def forward(
    weights: Weights, activations: Sequence[type[nn.Module] | None], observations: Tensor, allocate: Allocator
) -> Trace:
    """Return the forward pass: a_D, and h_l in tensors from ``allocate``."""
    x = allocate("h0", (*observations.shape[:-2], observations.shape[-1] + 1, observations.shape[-2])).mT
    x[..., :-1] = observations
    x[..., -1] = 1.0
    hidden = [x]
    for i, activation in enumerate(activations):
        h = allocate(f"h{i + 1}", (*observations.shape[:-1], weights.biases[i].shape[-1]))
        _layer(weights, i, hidden[i], out=h)
        if activation is nn.Tanh and h.device.type == "cpu":
            np.tanh(h.numpy(), out=h.numpy())  # several times as fast as torch.tanh
        elif activation is nn.Tanh:
            h.tanh_()
        elif activation is nn.ReLU:
            h.relu_()
        hidden.append(h)
    return Trace(activations, hidden, _last_layer(weights, hidden))


def pull(
    weights: Weights,
    trace: Trace,
    cotangents: tuple[Tensor, Tensor | None],
    out: Weights | None,
    allocate: Allocator,
    keep: Allocator | None = None,
    lowest: int = 0,
) -> Tensor:
    """Add the gradient to ``out``, and return the delta of layer ``lowest``; layers below it are left out.

    Args:
        weights: of the policy.
        trace: the forward pass.
        cotangents: delta_D, ``[..., output, row]``, and the gradient with respect to log_std.
        out: what the gradient is added to; None: it is not needed.
        allocate: allocates temporary tensors.
        keep: allocates the delta_l and t_l that are stored in the trace; None: they are not stored.
        lowest: the index of the lowest layer that is needed.
    """
    delta = cotangents[0].mT
    if out is not None and out.log_std is not None and out.log_std_counts:
        assert cotangents[1] is not None
        out.log_std.add_(cotangents[1])
    for i in reversed(range(lowest, len(weights.weights))):
        h = trace.hidden[i]
        if keep is not None:
            trace.deltas[i] = delta
        if out is not None:
            _add_layer(out, i, delta, h)
        if i == lowest:
            break
        into = keep if keep is not None and i > 1 else allocate
        e = product(delta, weights.weights[i], out=into(f"delta{i}", h.shape))
        if keep is not None and trace.activations[i - 1] is nn.Tanh:
            trace.bends[i - 1] = torch.mul(h, e, out=keep(f"t{i}", h.shape))
        delta = _times_derivative(e, h, trace.activations[i - 1], out=e)
    return delta


def push(
    weights: Weights, trace: Trace, direction: Weights, allocate: Allocator, lowest: int = 0
) -> tuple[list[Tensor | None], Tensor]:
    """Return R h_1 to R h_{D-1}, and R a_D; None stands for zero.

    The direction's part in layers below ``lowest`` is left out.
    """
    tangents: list[Tensor | None] = []
    before: Tensor | None = None
    for i, activation in enumerate(trace.activations):
        if i < lowest or (before is None and not any(direction.counts[i])):
            tangents.append(None)
            continue
        h = trace.hidden[i + 1]
        moved = allocate(f"Rh{i + 1}", h.shape)
        if direction.counts[i][0]:
            _layer(direction, i, trace.hidden[i], out=moved)
        else:
            moved.copy_(direction.biases[i])
        if before is not None:
            add_product(moved, before, weights.transposed[i])
        before = _times_derivative(moved, h, activation, out=moved)
        tangents.append(before)
    output = _last_layer(direction, trace.hidden)
    if before is not None:
        add_product(output, weights.weights[-1], before.mT)
    return tangents, output


def add_hessian(
    weights: Weights,
    trace: Trace,
    direction: Weights,
    out: Weights,
    allocate: Allocator,
    added: tuple[Tensor, Tensor | None] | None = None,
) -> None:
    """Add to ``out`` the Hessian-vector product of the loss whose B is in the trace.

    ``added`` are the cotangents, as for ``pull``, of another function, whose gradient is added in the same pass.
    """
    tangents, output = push(weights, trace, direction, allocate)
    assert trace.bend is not None
    turned, turned_log_std = trace.bend.apply(output, direction.log_std)
    if added is not None:
        turned += added[0]
        if added[1] is not None:
            assert turned_log_std is not None
            turned_log_std = turned_log_std + added[1]
    if out.log_std is not None and out.log_std_counts:
        assert turned_log_std is not None
        out.log_std.add_(turned_log_std)
    moved, last = turned.mT, len(weights.weights) - 1
    for i in reversed(range(out.lowest, last + 1)):
        _add_layer(out, i, moved, trace.hidden[i])
        delta, tangent = trace.deltas.get(i), tangents[i - 1] if i > 0 else None
        if delta is not None and tangent is not None and out.counts[i][0]:
            _add_outer(out, i, delta, tangent)
        if i == out.lowest:
            break
        h, bend = trace.hidden[i], trace.bends.get(i - 1)
        # The tangent is no longer needed and still in the cache, so the result may overwrite it.
        into = tangent if bend is None and tangent is not None else allocate(f"Rdelta{i}", h.shape)
        if delta is None or not direction.counts[i][0]:
            product(moved, weights.weights[i], out=into)
        elif i == last:
            # The cost of a product with few columns is that of writing its result, so both are one product.
            columns = torch.cat([moved.mT, delta.mT], dim=-2).mT
            product(columns, torch.cat([weights.weights[i], direction.weights[i]], dim=-2), out=into)
        else:
            product(moved, weights.weights[i], out=into)
            add_product(into, delta, direction.weights[i])
        moved = _times_derivative(into, h, trace.activations[i - 1], out=into)
        if bend is not None and tangent is not None:
            moved.addcmul_(bend, tangent, value=-2.0)


def add_fisher(weights: Weights, trace: Trace, direction: Weights, out: Weights, allocate: Allocator) -> None:
    """Add to ``out`` the Fisher-vector product, with the trace's B."""
    assert trace.bend is not None
    if trace.output_derivatives is None:
        _, output = push(weights, trace, direction, allocate)
        pull(weights, trace, trace.bend.apply(output, direction.log_std), out, allocate)
        return
    _, output = push(weights, trace, direction, allocate, lowest=1)
    x, moved = trace.hidden[0].mT, direction.first_layer()
    for i, derivatives in enumerate(trace.output_derivatives):
        output[..., i, :] += (product(moved, derivatives) * x).sum(dim=-2)
    cotangents = trace.bend.apply(output, direction.log_std)
    pull(weights, trace, cotangents, out, allocate, lowest=1)
    for i, derivatives in enumerate(trace.output_derivatives):
        spread = torch.mul(x, cotangents[0][..., i, None, :], out=allocate("x delta", x.shape))
        _add_first(out, product(spread, derivatives.mT))


def keep_output_derivatives(weights: Weights, trace: Trace, keep: Allocator, allocate: Allocator) -> None:
    """Compute S and store it in a trace, in tensors from ``keep``."""
    kept = []
    for i in range(trace.output.shape[-2]):
        one = torch.zeros_like(trace.output)
        one[..., i, :] = 1.0
        derivatives = pull(weights, trace, (one, None), None, allocate).mT
        kept.append(keep("S", derivatives.shape).copy_(derivatives))
    trace.output_derivatives = kept


class FirstLayers:
    """T and Q of the equations above, gathered from blocks of rows; all products with a Hessian have them in common.

    Args:
        trace: of the first block, with its deltas.
        keep: allocates T and Q.
        spread_numbers: how many numbers of ``s_1 x`` are computed at once, for each task; None: as many as fit the
            cache, or 1 GB of a GPU. On the CPU the number does not depend on how many tasks are computed at once, so
            that the resulting bits do not either.
    """

    def __init__(self, trace: Trace, keep: Allocator, spread_numbers: int | None = None) -> None:
        x, h, delta = trace.hidden[0], trace.hidden[1], trace.deltas[1]
        default = 2**18 if x.device.type == "cpu" else 2**28 // math.prod(x.shape[:-2])
        self._spread_numbers = spread_numbers or default
        tasks, inputs = x.shape[:-2], x.shape[-1]
        self._mixed = keep("T", (*tasks, delta.shape[-1], inputs, h.shape[-1]), axes=3).zero_()
        self._own = keep("Q", (*tasks, inputs, inputs, h.shape[-1]), axes=3).zero_() if 0 in trace.bends else None

    def gather(self, trace: Trace, allocate: Allocator) -> None:
        """Add the contribution of a block of rows; its delta_2 and t_1 are not needed after that."""
        delta, bend = trace.deltas[1], trace.bends.get(0)
        rows, inputs, width = *trace.hidden[0].shape[-2:], trace.hidden[1].shape[-1]
        size = max(1, self._spread_numbers // (inputs * width))
        for start in range(0, rows, size):
            part = (..., slice(start, start + size), slice(None))
            x, h = trace.hidden[0][part], trace.hidden[1][part]
            derivatives = allocate("s", h.shape).fill_(1.0)
            _times_derivative(derivatives, h, trace.activations[0], out=derivatives)
            spread = allocate("sx", (*x.shape, width), axes=3)
            torch.mul(derivatives.unsqueeze(-2), x.unsqueeze(-1), out=spread)
            add_product(self._mixed.flatten(-2), delta[part].mT, spread.flatten(-2))
            if self._own is not None:
                assert bend is not None
                pairs = x.unsqueeze(-1) * x.unsqueeze(-2)
                add_product(self._own.flatten(-3, -2), pairs.flatten(-2).mT, derivatives.mul_(bend[part]))

    def add(self, direction: Weights, out: Weights, allocate: Allocator) -> None:
        """Add to ``out`` the part of a Hessian-vector product that T and Q give."""
        moved = direction.first_layer()
        terms = allocate("terms of T", self._mixed.shape, axes=3)
        if out.counts[1][0]:
            out.weights[1].add_(torch.mul(self._mixed, moved.unsqueeze(-3), out=terms).sum(dim=-2))
        if not any(out.counts[0]):
            return
        gradient = torch.mul(self._mixed, direction.weights[1].unsqueeze(-2), out=terms).sum(dim=-3)
        if self._own is not None:
            gradient.sub_((self._own * moved.unsqueeze(-3)).sum(dim=-2), alpha=2.0)
        _add_first(out, gradient)


def over_rows(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over rows of ``left * right``, ``[..., output, 1]``.

    A matrix product is avoided, since its last bit depends on whether several tasks are computed at once.
    """
    return (left * right).sum(dim=-1, keepdim=True)


def _times_derivative(tensor: Tensor, h: Tensor, activation: type[nn.Module] | None, out: Tensor) -> Tensor:
    """Return the tensor times ``phi'``, computed from ``h = phi(a)`` (1 - h^2 for tanh), in ``out``.

    Without an activation, the tensor itself is returned.
    """
    if activation is nn.Tanh:
        torch.ops.aten.tanh_backward.grad_input(tensor, h, grad_input=out)
        return out
    if activation is nn.ReLU:
        torch.ops.aten.threshold_backward.grad_input(tensor, h, 0.0, grad_input=out)
        return out
    return tensor


def _add_layer(out: Weights, layer: int, delta: Tensor, h: Tensor) -> None:
    """Add the needed part of a layer's gradient to ``out``, from the layer's delta."""
    weight, bias = out.counts[layer]
    if layer == 0 and weight:
        _add_first(out, product(h.mT, delta))
        return
    if weight:
        _add_outer(out, layer, delta, h)
    if bias:
        out.biases[layer].add_(delta.sum(dim=-2, keepdim=True))


def _add_first(out: Weights, gradient: Tensor) -> None:
    """Add the needed part of the first layer's gradient, given with respect to U^T: ``[..., input, width]``."""
    weight, bias = out.counts[0]
    if weight:
        out.transposed[0].add_(gradient[..., :-1, :])
    if bias:
        out.biases[0].add_(gradient[..., -1:, :])


def _add_outer(out: Weights, layer: int, delta: Tensor, h: Tensor) -> None:
    """Add ``delta^T h``, transposed if ``h`` has few columns: that product is several times as fast."""
    if h.shape[-1] < delta.shape[-1]:
        out.transposed[layer].add_(product(h.mT, delta))
    else:
        add_product(out.weights[layer], delta.mT, h)


def _layer(weights: Weights, layer: int, h: Tensor, out: Tensor) -> None:
    """Write a layer's affine map of ``h``, ``[..., row, width]``, into ``out``."""
    if layer == 0:
        product(h, weights.first_layer(), out=out)
    else:
        affine(weights.biases[layer], h, weights.transposed[layer], out=out)


def _last_layer(weights: Weights, hidden: Sequence[Tensor]) -> Tensor:
    """Return the last layer's affine map, ``[..., output, row]``."""
    if len(hidden) == 1:
        return product(weights.first_layer().mT, hidden[0].mT)
    return affine(weights.last_bias, weights.weights[-1], hidden[-1].mT)
