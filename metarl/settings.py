"""Settings: a tree of frozen dataclasses, with the same names in TOML, on the command line and in Python."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from metarl.fields import FORBID, Count, Finite, Positive, Switch, Unit


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The settings of collecting rollouts and discounting returns.

    An iteration plays ``tasks * episodes * (inner.steps + 1)`` episodes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    iterations: Count = 100
    tasks: Count = 20  # newly drawn in each iteration
    episodes: Count = 20  # for each task and each adaptation step
    trial_episodes: Count = 2  # in a trial, of learners with memory
    gamma: Unit = 0.99
    gae_lambda: Unit = 0.9
    normalize_observations: Switch = False  # by running mean and deviation over all training tasks
    normalize_rewards: Switch = False  # by the running deviation of discounted returns; reported returns are not
    workers: Literal["auto"] | Count = "auto"  # processes that step environments without a batched implementation
    step_timeout: Positive = 60.0  # seconds that a worker may take for one step of its environments


@dataclass(frozen=True, kw_only=True)
class Inner:
    """The settings of the inner update: policy-gradient steps, each on new rollouts.

    ``objective`` is the loss that the inner update descends; ``auto`` is the learner's default. The objectives differ
    in their second derivatives, which enter the meta-gradient. ``policy-gradient`` gives no credit to the actions
    sampled before adaptation. ``likelihood-ratio`` does, for each step by itself (Rothfuss et al. 2019), and has the
    same gradient. ``dice`` couples the steps of an episode; its derivatives estimate those of the discounted return
    without bias (Foerster et al. 2018), so its gradient weights step t by ``gamma^t`` too.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    steps: Count = 1
    step_size: Positive = 0.1
    later_step_scale: Positive = 0.5  # factor on the step size from the second step on, in evaluation only
    objective: Literal["auto", "policy-gradient", "likelihood-ratio", "dice"] = "auto"
    baseline: Literal["linear", "none"] = "linear"  # subtracted from returns; none is for dice only

    def objective_of(self, learner: Any) -> str:
        """Return the objective that a learner (or its class) descends."""
        own = learner.inner_objective
        return self.objective if self.objective != "auto" else own if isinstance(own, str) else "the learner's own"


@dataclass(frozen=True, kw_only=True)
class PolicyNetwork:
    """The policy and its initial weights."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    name: Annotated[str, Field(strict=True, min_length=1)] = "MlpPolicy"  # or "module:Class", a policy of your own
    hidden_sizes: tuple[Count, ...] = (64, 64)  # the last one of a GruPolicy is the size of its memory
    activation: Literal["tanh", "relu"] = "tanh"
    output_gain: Positive = 1.0  # with a small gain, learning collapses on navigation
    log_std_init: Finite = 0.0
    log_std_min: Finite = -1.6094379124341003  # floor on the exploration noise: a standard deviation of 0.2


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Validation during training, and the test at its end."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    every: Count = 10  # iterations between validations
    tasks: Count = 40  # validation tasks
    test_tasks: Count = 500
    episodes: Count = 20  # for each task and adaptation step
    steps: Count = 3  # adaptation steps


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    family: Annotated[str, Field(strict=True, min_length=1)] = "metarl/Navigation2D-v0"
    learner: Annotated[str, Field(strict=True, min_length=1)] = "maml"
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 1
    device: Annotated[str, Field(strict=True, min_length=1)] = "auto"
    family_kwargs: dict[str, Any] = field(default_factory=dict)
    learning: Learning = field(default_factory=Learning)
    inner: Inner = field(default_factory=Inner)
    outer: Any = None  # one of the learner's ``outer_settings``, with the learner's ``options``
    policy: PolicyNetwork = field(default_factory=PolicyNetwork)
    evaluation: Evaluating = field(default_factory=Evaluating)

    @property
    def iteration_episodes(self) -> int:
        """The episodes that an iteration of MAML plays in all, and so one of a baseline that is compared with it."""
        return self.learning.tasks * self.learning.episodes * (self.inner.steps + 1)


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def structure(data: dict[str, Any], learner: Any, owner: Callable[[str], str | None] = lambda option: None) -> Settings:
    """Turn nested dicts, as from TOML, into settings; ``outer`` gets a dataclass of the learner.

    Args:
        data: nested dicts; numpy's numbers and arrays are accepted too.
        learner: the learner's class.
        owner: name of a setting of ``[outer]`` -> a learner that has it, for the error message if this one does not.

    Raises:
        ValueError: unknown keys or wrong values, all in one message, each with the nearest valid key or the expected
            values.
    """
    data = _without_numpy(data)
    if isinstance(policy := data.get("policy", {}), dict):
        data = {**data, "policy": {"name": learner.policy_name, **policy}}
    problems: list[str] = []
    kind = _outer_kind(learner, data.get("outer"))
    outer: Any = None
    try:
        outer = _adapter(kind).validate_python(data.get("outer", {}))
    except ValidationError as error:
        problems += _sentences(error.errors(), lambda _, problem: _outer_sentence(problem, learner, kind, owner))
    except ValueError as error:
        problems.append(str(error))
    try:
        settings: Settings = _adapter(Settings).validate_python({**data, "outer": outer})
    except ValidationError as error:
        problems += _sentences(error.errors(), lambda key, problem: _sentence(key, problem, valid_keys(kind)))
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    if settings.policy.log_std_init < settings.policy.log_std_min:
        raise ValueError(
            f"policy.log_std_init is {settings.policy.log_std_init}, below its floor policy.log_std_min = "
            f"{settings.policy.log_std_min}, where it would not be learned; lower the floor as well"
        )
    objective = settings.inner.objective_of(learner)
    if settings.inner.baseline == "none" and objective != "dice":
        raise ValueError(
            f"inner.baseline is 'none', which is for inner.objective = 'dice', and this is {objective!r}; set "
            "inner.objective = 'dice' as well, or leave inner.baseline out"
        )
    kwargs = {key: _plain(f"family_kwargs.{key}", value) for key, value in settings.family_kwargs.items()}
    return dataclasses.replace(settings, family_kwargs=kwargs)


def structure_arguments(
    learner: Any,
    owner: Callable[[str], str | None],
    policy: str | None,
    policy_kwargs: dict[str, Any] | None,
    **sections: Any,
) -> tuple[Settings, dict[str, Any]]:
    """Return the settings that a learner's arguments in Python stand for, and the policy's arguments that are none.

    Args:
        learner: the learner's class.
        owner: as for ``structure``.
        policy: its name; None for the learner's default.
        policy_kwargs: settings of ``[policy]``, and other arguments of the policy.
        sections: the other sections and settings by name; None for the defaults.

    Raises:
        ValueError: see ``structure``.
    """
    rest = dict(policy_kwargs or {})
    own = {key: rest.pop(key) for key in set(_field_names(PolicyNetwork)) - {"name"} if key in rest}
    given = {key: {} if value is None else value for key, value in sections.items()}
    named = own if policy is None else {"name": policy, **own}
    return structure({**given, "learner": learner.name, "policy": named}, learner, owner), rest


def _without_numpy(value: Any) -> Any:
    """Return settings with numpy's numbers replaced by Python's, since strict validation refuses numpy's."""
    if isinstance(value, dict):
        return {key: _without_numpy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_numpy(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _plain(key: str, value: Any) -> Any:
    """Return a value in the types of TOML and JSON, so that loading a learner gives the same arguments as saving it."""
    if isinstance(value, dict):
        return {str(name): _plain(f"{key}.{name}", entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(key, entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{key} is {value!r}; expected numbers, text, lists and tables, which a file can keep (other arguments belong "
        "into the family's registration: gymnasium.register(..., kwargs=...))"
    )


def as_dict(settings: Settings) -> dict[str, Any]:
    """Return settings as nested dicts of types that TOML and JSON can hold."""
    plain = dataclasses.asdict(settings)
    plain["policy"]["hidden_sizes"] = list(settings.policy.hidden_sizes)
    return plain


def outer_kinds(learner: Any) -> tuple[type, ...]:
    """Return the dataclasses that a learner's ``[outer]`` can be: each of its meta-updates with its options added."""
    kinds: tuple[type, ...] = learner.outer_settings
    for kind in kinds:
        if not hasattr(kind, "__pydantic_config__"):  # unknown keys are refused, whatever a learner forgets to say
            kind.__pydantic_config__ = FORBID  # type: ignore[attr-defined]
    return kinds if learner.options is None else tuple(_combined(learner.options, kind) for kind in kinds)


def outer_options(learner: Any) -> set[str]:
    """Return the names of all settings that a learner's ``[outer]`` can have."""
    return {name for kind in outer_kinds(learner) for name in _field_names(kind)}


@functools.cache
def _combined(options: type, kind: type) -> type:
    """Return a dataclass with the fields of both."""

    def reduce(settings: Any) -> tuple[Any, ...]:
        return _make_combined, (options, kind, dataclasses.asdict(settings))

    members = {"__doc__": kind.__doc__, "__reduce__": reduce}
    made = type(f"{options.__name__}With{kind.__name__}", (options, kind), members)
    return dataclass(frozen=True, kw_only=True)(made)


def _make_combined(options: type, kind: type, values: dict[str, Any]) -> Any:
    """Return a settings object from its values, for ``pickle`` and ``copy``."""
    return _combined(options, kind)(**values)


def _outer_kind(learner: Any, data: Any) -> type:
    """Return the dataclass of ``[outer]`` that ``update`` chooses; the first one by default."""
    kinds = outer_kinds(learner)
    wanted = data.get("update") if isinstance(data, dict) else None
    return next((kind for kind in kinds if wanted == getattr(kind, "update", None)), kinds[0])


def _field_names(kind: type) -> list[str]:
    return [entry.name for entry in dataclasses.fields(kind)]


def valid_keys(outer: type) -> list[str]:
    """Return the dotted names of all settings; ``outer`` is the dataclass of ``[outer]``."""
    keys = []
    for section in dataclasses.fields(Settings):
        keys.append(section.name)
        value = outer if section.name == "outer" else getattr(Settings(), section.name)
        if dataclasses.is_dataclass(value):
            keys.extend(f"{section.name}.{entry.name}" for entry in dataclasses.fields(value))
    return keys


def _outer_sentence(problem: Any, learner: Any, kind: type, owner: Callable[[str], str | None]) -> str:
    keys = _places(problem)
    unknown = problem["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    key = keys[0] if keys else ""
    if key == "update" and problem["type"] == "literal_error":
        kinds = ", ".join(repr(getattr(other, "update", None)) for other in learner.outer_settings)
        return f"outer.update is {problem['input']!r}; learner {learner.name!r} takes {kinds}"
    if unknown:
        for other in outer_kinds(learner):
            if key in _field_names(other):
                return (
                    f"outer.{key} is a setting of outer.update = {getattr(other, 'update', None)!r}, and this is "
                    f"{getattr(kind, 'update', None)!r}; set outer.update as well, or leave it out"
                )
        name = owner(key)
        if name is not None:
            return f"outer.{key} is a setting of learner {name!r}, not of {learner.name!r}; leave it out"
    return _sentence(".".join(["outer", *keys]), problem, valid_keys(kind))


def _places(problem: Any) -> list[str]:
    """Return the keys that lead to a wrong setting, without the types that pydantic adds, as ``literal['auto']``."""
    return [str(part) for part in problem["loc"] if not re.search(r"[\[-]", str(part))]


def _sentences(problems: Sequence[Any], describe: Callable[[str, Any], str]) -> list[str]:
    """Return a sentence for each wrong setting; for a setting with several types it says what each expects."""
    sentences: dict[str, str] = {}
    for problem in problems:
        key = ".".join(_places(problem))
        sentence = describe(key, problem)
        if key in sentences and sentence != sentences[key]:
            sentence = f"{sentences[key]}, or {problem['msg'].replace('Input should ', '', 1)}"
        sentences[key] = sentence
    return list(sentences.values())


def _sentence(key: str, problem: Any, keys: list[str]) -> str:
    given = problem["input"]
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown setting {key!r}{_nearest(key, keys)}"
    if problem["type"] == "dataclass_type":
        return f"{key or 'the configuration'} is {given!r}; expected a table of settings"
    message = problem["msg"].replace("Input should", "it should", 1)
    return f"{key} is {given!r}; {message}" if key else message


def _nearest(key: str, keys: list[str]) -> str:
    last = {name.rpartition(".")[2]: name for name in reversed(keys)}
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    near = near or [last[match] for match in difflib.get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.6)]
    near = near or difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
    return f"; the nearest is {near[0]!r}"
