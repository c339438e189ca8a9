"""The fast path: the same bits for any threads and grouping, how it divides its work, and its memory."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from operator import itemgetter

import pytest
import torch
from adaptations import CPU, HEADS, OBJECTIVES, STEP_SIZE, adapting, make_policy_for, start
from samples import make_policy, make_samples
from small import small
from torch import Tensor

from metarl.agents import Policy, Samples
from metarl.gradients import task_axis
from metarl.gradients.adaptation import Adaptation, choose_backend
from metarl.gradients.curvature import Curvature
from metarl.gradients.perceptron_backend import PerceptronBackend


@pytest.mark.parametrize(
    ("path", "head", "objective", "adapts"),
    [
        *itertools.product(["fast", "general"], HEADS, ["policy-gradient"], ["all"]),
        *itertools.product(["fast"], HEADS, ["policy-gradient"], ["1", "context"]),
        ("fast", "gaussian", "dice", "all"),
    ],
)
def test_threads_and_grouping_of_tasks_change_no_bit(path: str, head: str, objective: str, adapts: str) -> None:
    policy = make_policy_for(adapts, head)
    whole = make_samples(policy, tasks=5, rows=321), make_samples(policy, tasks=5, rows=321, seed=1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(update(policy, path, objective, adapts, *whole))
    finally:
        torch.set_num_threads(before)
    chosen = choose_backend(policy, CPU, path=path, adapts=adapting(policy, adapts))
    assert not isinstance(chosen, PerceptronBackend) or chosen.gathers(whole[0])
    for other in results[1:]:
        assert all(torch.equal(first, second) for first, second in zip(results[0], other, strict=True))
    alone = [
        update(policy, path, objective, adapts, *(samples.map(itemgetter(slice(i, i + 1))) for samples in whole))
        for i in range(5)
    ]
    for i, (gradients, _) in enumerate(alone):
        assert torch.equal(gradients[0], results[0][0][i])
    assert torch.equal(task_axis.mean(torch.stack([product for _, product in alone])), results[0][1])


def update(
    policy: Policy, path: str, objective: str, adapts: str, support: Samples, query: Samples
) -> tuple[Tensor, Tensor]:
    names = adapting(policy, adapts)
    backend = choose_backend(policy, CPU, path=path, objective=OBJECTIVES[objective], adapts=names)
    adaptation = Adaptation(policy, backend, start(policy))
    adaptation.adapt(support, STEP_SIZE)
    curvature = Curvature(adaptation, query)
    vector = torch.randn(len(adaptation.vector), generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return curvature.gradients, curvature.product(vector)


@pytest.mark.parametrize("episode", [5, 23])
@pytest.mark.parametrize("sizes", [(), (7,), (6, 5), (12, 10)])
@pytest.mark.parametrize("adapts", ["all", "1", "context"])
@pytest.mark.parametrize("head", HEADS)
def test_sizes_that_are_no_multiple_of_any_alignment_change_no_bit(
    head: str, adapts: str, sizes: tuple[int, ...], episode: int
) -> None:
    """In single precision, where a task's numbers then begin anywhere beside those of others."""
    policy = make_policy_for(adapts, head, sizes=sizes, numbers=2)
    backend = choose_backend(policy, CPU, adapts=adapting(policy, adapts))
    support, query = (make_samples(policy, tasks=5, rows=episode, seed=seed).map(to_single) for seed in (0, 1))
    vectors = start(policy).float().expand(5, -1)
    direction = torch.randn(len(vectors[0]), generator=torch.Generator().manual_seed(8))

    def computed(group: slice) -> list[Tensor]:
        loss = backend.inner_loss(vectors[group].clone(), support.task(group))
        adapted = backend.adapted(vectors[group] - STEP_SIZE * loss.gradient, query.task(group))
        pushed = loss.push(direction)
        turned = adapted.fisher(pushed)
        return [loss.gradient, adapted.gain, adapted.gradient, pushed, turned, loss.pull(turned)]

    whole = computed(slice(0, 5))
    for group in (slice(0, 1), slice(1, 3), slice(2, 5), slice(4, 5)):
        for together, apart in zip(whole, computed(group), strict=True):
            assert torch.equal(together[group], apart)


def to_single(part: Tensor) -> Tensor:
    return part.float() if part.is_floating_point() else part


def test_a_whole_run_has_the_same_bits_whatever_the_machines_thread_settings() -> None:
    code = (
        "from metarl import MAML\n"
        "model = MAML(learning={'tasks': 6, 'episodes': 10}, policy_kwargs={'hidden_sizes': (64, 64)},\n"
        "    evaluation={'tasks': 2, 'episodes': 2, 'steps': 1}).learn(iterations=2)\n"
        "import hashlib; from metarl.gradients.flat import flatten\n"
        "print(hashlib.sha256(flatten(model.parameters.values()).numpy().tobytes()).hexdigest())\n"
    )
    hashes = set()
    for threads in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_a_policy_without_a_fast_path_is_refused_where_it_is_asked_for() -> None:
    policy = make_policy()
    assert choose_backend(policy, CPU).name == "fast"
    with pytest.raises(ValueError, match="no fast path for this policy"):
        small(policy_kwargs={"activation_fn": torch.nn.ELU}, outer={"path": "fast"})


def test_how_many_tasks_are_taken_at_once() -> None:
    policy = make_policy(sizes=(64, 64))
    few, many = make_samples(policy, tasks=5, rows=20), make_samples(policy, tasks=5, rows=5000)
    on_cpu, elsewhere = choose_backend(policy, CPU), choose_backend(policy, torch.device("meta"))
    assert on_cpu.name == elsewhere.name == "fast"
    assert on_cpu.groups(few) == [slice(0, 3), slice(3, 5)]
    assert on_cpu.groups(many) == list(range(5))
    assert elsewhere.groups(few) == elsewhere.groups(many) == [slice(None)]
    assert choose_backend(policy, torch.device("meta"), path="general").groups(few) == list(range(5))


def test_what_products_have_in_common_is_kept_where_it_saves_time() -> None:
    policy, wide = make_policy(sizes=(64, 64)), make_policy(sizes=(4, 20_000))
    few, many = make_samples(policy, tasks=5, rows=20), make_samples(policy, tasks=5, rows=5000)
    usual = PerceptronBackend(policy)
    assert usual.gathers(many)
    assert not usual.gathers(few)
    assert not PerceptronBackend(wide).gathers(make_samples(wide, tasks=1, rows=5000))
    assert usual.keeps_output_derivatives()
    assert not PerceptronBackend(policy, keep=False).keeps_output_derivatives()
    assert not PerceptronBackend(make_policy("multi-categorical")).keeps_output_derivatives()
    assert not PerceptronBackend(make_policy(sizes=(64,))).keeps_output_derivatives()


def test_memory_is_used_again_and_does_not_grow_with_episodes_of_changing_length() -> None:
    policy = make_policy(sizes=(64, 64))
    backend = choose_backend(policy, CPU)
    assert isinstance(backend, PerceptronBackend)

    def iteration(rows: int) -> tuple[set[int], int]:
        """Where the tensors that lie free afterwards are, and how many numbers they have."""
        adaptation = Adaptation(policy, backend, start(policy).float())
        adaptation.adapt(make_samples(policy, rows=rows).map(Tensor.float), STEP_SIZE)
        curvature = Curvature(adaptation, make_samples(policy, rows=rows, seed=1).map(Tensor.float))
        curvature.product(curvature.gradient)
        del adaptation, curvature
        gc.collect()
        free = backend.store.free()
        places = {tensor.data_ptr() for tensor in free}
        assert len(places) == len(free)  # none twice
        return places, sum(map(len, free))

    places, longest = iteration(200)
    assert iteration(200) == (places, longest)
    sizes = [iteration(rows)[1] for rows in range(100, 200, 9)]
    assert max(sizes) <= 1.5 * longest
