"""Settings: a tree of frozen dataclasses, with the same names in TOML, on the command line and in Python."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from metarl.augmenting.settings import Augmenting
from metarl.envs.references import as_family
from metarl.fields import FORBID, Count, Counts, Name, Names, NoneOrCount, Patterns, Positive, Switch, Unit, setting
from metarl.guide import faults
from metarl.guide.arguments import refuse_argument
from metarl.training.network import PolicyNetwork
from metarl.training.schedules import AnySchedule, read_schedule, scheduled, takes_schedule, with_values


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The settings of collecting rollouts and discounting returns.

    An iteration plays ``tasks * episodes * (inner.steps + 1)`` episodes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    iterations: Count = setting(100, "how often the shared parameters are updated", "meta-updates")
    tasks: Count = setting(20, "tasks that are newly drawn in each iteration")
    train_tasks: NoneOrCount = setting(0, "tasks from which those of each iteration are chosen; 0: new ones are drawn")
    episodes: Count = setting(20, "episodes of each task, before adaptation and after each inner step")
    gamma: Unit = setting(0.99, "discount of rewards", "factor for each step")
    gae_lambda: Unit = setting(0.9, "lambda of generalized advantage estimation: lower is less noise and more bias")
    trial_episodes: Count = setting(2, "episodes of one task in a trial, of learners with memory")
    normalize_observations: Switch = setting(
        False, "whether observations are, by running mean and deviation over all training tasks"
    )
    normalize_rewards: Switch = setting(
        False, "whether rewards are, by the running deviation of discounted returns; reported returns are not"
    )
    workers: Literal["auto"] | Count = setting(
        "auto", "processes that step environments without a batched implementation; auto: chosen by the machine"
    )
    step_timeout: Positive = setting(
        60.0, "longest time a worker may take for a step of its environments; without workers there is none", "seconds"
    )
    restart_workers: NoneOrCount = setting(
        0, "how often workers that died or hang are started anew; the episodes are then drawn again, the same ones"
    )
    check: Switch = setting(
        True, "whether the family is checked for a few seconds before training, and then whether adaptation helps"
    )


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
    steps: Count = setting(1, "inner updates in training, each on new episodes", "adaptation steps")
    step_size: Positive = setting(0.1, "length of an inner step along the policy gradient (the learning rate)")
    later_step_scale: Positive = setting(
        0.5, "of the steps after the first one, in evaluation only", "factor on step_size"
    )
    objective: Literal["auto", "policy-gradient", "likelihood-ratio", "dice"] = setting(
        "auto", "loss that the inner update descends; auto: the learner's own"
    )
    adapts: Literal["all", "head", "biases", "norms", "lora", "context"] | Patterns = setting(
        "all",
        "what inner updates change: all parameters, the head (last layer and noise), biases, normalisation layers "
        "(norms), low-rank updates (lora), additional inputs (context), or names and patterns, as "
        '["action_net.*", "log_std"]; the meta-update changes all but what policy.freeze freezes',
    )
    baseline: Literal["linear", "none"] = setting("linear", "what is subtracted from returns; none is for dice only")

    def objective_of(self, learner: Any) -> str:
        """Return the objective that a learner (or its class) descends."""
        own = learner.inner_objective
        return self.objective if self.objective != "auto" else own if isinstance(own, str) else "the learner's own"


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Validation during training, and the test at its end."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    every: Count = setting(
        10, "how long between validations, of which the best one's parameters are kept", "iterations"
    )
    tasks: Count = setting(40, "tasks of a validation")
    test_tasks: Count = setting(500, "tasks of the test after training")
    episodes: Count = setting(20, "episodes of each task, before adaptation and after each adaptation step")
    steps: Count = setting(3, "adaptation steps in validation and test")
    success: Literal["any", "last"] = setting(
        "any", "when an episode counts as a success: where info says so at any of its steps, or at the last"
    )
    record: Names = setting((), 'entries of info whose mean over each episode is kept, as ["x_velocity"]', "names")
    protocol: Literal["steps", "pearl", "k-shot", "generalization"] = setting(
        "steps", "what the test after training plays and counts"
    )
    exploration: Count = setting(2, "episodes before the one that counts, of protocol pearl", "episodes")
    shots: Counts = setting((1, 2, 5, 10, 20), "numbers of episodes before those that count, of protocol k-shot")
    beyond: Positive = setting(
        0.5, "how far beyond its ranges a family's tasks go in protocol generalization", "widths of the range"
    )
    seed: Literal["run"] | Annotated[int, Field(strict=True, ge=0, lt=2**32)] = setting(
        1, "seed of the tasks and episodes of validation and test, the same for all runs; run: each run's own"
    )
    best: Literal["return", "success"] = setting("return", "by what the best parameters are chosen in validation")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    family: Name = setting("metarl/Navigation2D-v0", "id of the environment family, or module:Id")
    learner: Name = setting("maml", "meta-learner: a name of 'metarl learners', or module:Class")
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = setting(1, "seed of everything that is random")
    device: Name = setting("auto", "where updates run: cpu, cuda, cuda:1; auto: the GPU if there is one")
    family_kwargs: dict[str, Any] = field(
        default_factory=dict, metadata={"meaning": "arguments of the family's constructor, and max_episode_steps"}
    )
    learning: Learning = field(default_factory=Learning)
    inner: Inner = field(default_factory=Inner)
    outer: Any = None  # one of the learner's ``outer_settings``, with the learner's ``options``
    policy: PolicyNetwork = field(default_factory=PolicyNetwork)
    augment: Augmenting = field(default_factory=Augmenting)
    evaluation: Evaluating = field(default_factory=Evaluating)

    @property
    def iteration_episodes(self) -> int:
        """The episodes that an iteration of MAML plays in all, and so one of a baseline that is compared with it."""
        return self.learning.tasks * self.learning.episodes * (self.inner.steps + 1)


_WORDS = ("family", "seed", "device")  # settings that are no tables, and for which None stands for nothing


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
    kind = _outer_kind(learner, data.get("outer"))
    data, schedules, problems = _take_schedules(data, kind)
    outer: Any = None
    try:
        outer = _adapter(kind).validate_python(data.get("outer", {}))
    except ValidationError as error:
        outer_sentence = functools.partial(_outer_sentence, learner=learner, kind=kind, owner=owner)
        problems += faults.sentences(error.errors(), outer_sentence)
    except ValueError as error:
        problems.append(str(error))
    try:
        settings: Settings = _adapter(Settings).validate_python({**data, "outer": outer})
    except ValidationError as error:
        sentence = functools.partial(faults.sentence, keys=valid_keys(kind))
        problems += faults.sentences(error.errors(), sentence)
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
    return with_values(dataclasses.replace(settings, family_kwargs=kwargs), schedules)


def _take_schedules(data: dict[str, Any], outer: type[Any]) -> tuple[dict[str, Any], dict[str, AnySchedule], list[str]]:
    """Return nested dicts with schedules replaced by their first values, the schedules by key, and their faults."""
    schedules: dict[str, AnySchedule] = {}
    faults: list[str] = []
    for section, kind in (("inner", Inner), ("outer", outer)):
        given = data.get(section)
        if not isinstance(given, dict):
            continue
        for name in filter(takes_schedule, _field_names(kind)):
            key = f"{section}.{name}"
            try:
                found = read_schedule(key, given.get(name))
            except ValueError as error:
                faults.append(str(error))
                data = {**data, section: {other: value for other, value in data[section].items() if other != name}}
                continue
            if found is not None:
                schedules[key] = found
                data = {**data, section: {**data[section], name: found.value(1.0)}}
    return data, schedules, faults


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
        sections: the other sections and settings by name, ``family`` among them; None for the defaults.

    Raises:
        TypeError: an argument that the class does not have.
        ValueError: see ``structure``.
    """
    for name in sections.keys() - set(_field_names(Settings)):
        keys = {getattr(kind, "update", ""): valid_keys(kind) for kind in outer_kinds(learner)}
        refuse_argument(learner.__name__, name, sections[name], keys)
    if policy_kwargs is not None and not isinstance(policy_kwargs, dict):
        raise ValueError(
            f"policy_kwargs is {faults.shown(policy_kwargs)}; expected a dict, as in {{'hidden_sizes': [64, 64]}} (the "
            "policy itself is the argument policy)"
        )
    rest = dict(policy_kwargs or {})
    by_path = isinstance(rest.get("features_extractor_class"), str)  # a class itself is not in the settings
    of_class = set() if by_path else {"features_extractor_class", "features_extractor_kwargs"}
    own = {key: rest.pop(key) for key in set(_field_names(PolicyNetwork)) - {"name"} - of_class if key in rest}
    given = {key: {} if value is None and key not in _WORDS else value for key, value in sections.items()}
    if isinstance(given["family_kwargs"], dict):
        given["family"], given["family_kwargs"] = as_family(given["family"], given["family_kwargs"])
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
    plain = dataclasses.asdict(with_values(settings, dict.fromkeys(scheduled(settings))))
    for key, schedule in scheduled(settings).items():
        section, _, name = key.partition(".")
        plain[section][name] = schedule.plain()
    for name in ("hidden_sizes", "lora_layers"):
        plain["policy"][name] = list(plain["policy"][name])
    for name in ("record", "shots"):
        plain["evaluation"][name] = list(plain["evaluation"][name])
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
        return _make_combined, (options, kind, {name: getattr(settings, name) for name in _field_names(type(settings))})

    members = {"__doc__": kind.__doc__, "__reduce__": reduce}
    made = type(f"{options.__name__}With{kind.__name__}", (options, kind), members)
    return dataclass(frozen=True, kw_only=True)(made)


def _make_combined(options: type, kind: type, values: dict[str, Any]) -> Any:
    """Return a settings object from its values, for ``pickle`` and ``copy``."""
    settings: Any = object.__new__(_combined(options, kind))
    for name, value in values.items():  # without the constructor, whose checks may not take a schedule
        object.__setattr__(settings, name, value)
    return settings


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


def _outer_sentence(place: str, problem: Any, learner: Any, kind: type, owner: Callable[[str], str | None]) -> str:
    key = place.partition(".")[0]
    if key == "update" and problem["type"] == "literal_error":
        kinds = ", ".join(repr(getattr(other, "update", None)) for other in learner.outer_settings)
        return f"outer.update is {problem['input']!r}; learner {learner.name!r} takes {kinds}"
    if faults.is_unknown(problem):
        for other in outer_kinds(learner):
            if key in _field_names(other):
                return (
                    f"outer.{key} is a setting of outer.update = {getattr(other, 'update', None)!r}, and this is "
                    f"{getattr(kind, 'update', None)!r}; set outer.update as well, or leave it out"
                )
        name = owner(key)
        if name is not None:
            return f"outer.{key} is a setting of learner {name!r}, not of {learner.name!r}; leave it out"
    return faults.sentence(".".join(filter(None, ["outer", place])), problem, valid_keys(kind))
