"""Missions in an unknown language, ``Instructions-v0``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs import tasks as task_tools
from metarl.envs.families.minigrid import MiniGridEnv
from metarl.envs.families.remapped import draw_permutations, refuse_no_permutation

COLOUR_WORDS = ("blue", "green", "grey", "purple", "red", "yellow")
THING_WORDS = ("ball", "box", "key")
# Of the missions of minigrid and BabyAI; a word that is not here counts as the last entry of the bag.
VOCABULARY = (
    *COLOUR_WORDS, *THING_WORDS, "a", "after", "and", "behind", "door", "fetch", "front", "get", "go", "goal", "in",
    "left", "must", "near", "next", "object", "of", "on", "open", "pick", "put", "right", "room", "square", "the",
    "then", "to", "toggle", "up", "use", "you", "your",
)  # fmt: skip
MOST_OF_ONE = 9.0  # times that a word is counted


def words_of(text: str) -> list[str]:
    """Return the words of a text in order, in small letters, without punctuation."""
    return re.findall(r"[a-z]+", text.lower())


def bag_of(text: str) -> NDArray[np.float32]:
    """Return how often a text has each word of the vocabulary, and last how many words are not in it."""
    counts = np.zeros(len(VOCABULARY) + 1, np.float32)
    for word in words_of(text):
        counts[VOCABULARY.index(word) if word in VOCABULARY else -1] += 1.0
    return np.minimum(counts, MOST_OF_ONE)


def translate(text: str, task: Any, colours: Sequence[str] = COLOUR_WORDS, things: Sequence[str] = THING_WORDS) -> str:
    """Return a mission in a task's language: the words that it swaps replaced, all others as they are."""
    swapped: dict[str, str] = {}
    for words, name in ((colours, "colours"), (things, "things")):
        swapped |= {word: words[int(number)] for word, number in zip(words, task[name], strict=True)}
    return " ".join(swapped.get(word, word) for word in words_of(text))


def chosen_words(name: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the words that are swapped, in the order of the known ones.

    Raises:
        ValueError: one is not known, comes twice, or there is none.
    """
    words = [given] if isinstance(given, str) else list(given)
    if not words or set(words) - set(known) or len(set(words)) < len(words):
        raise ValueError(f"{name} is {given!r}; expected one or more different ones of {', '.join(known)}")
    return tuple(word for word in known if word in words)


class InstructionsEnv(MiniGridEnv):
    """Do what a mission says in a language whose words are swapped (``metarl/Instructions-v0``).

    - **What varies** (the task): ``colours`` and ``things``, permutations of the words blue, green, grey, purple, red,
      yellow and ball, box, key: for the word number i the mission says the one of number ``colours[i]`` or
      ``things[i]``. **Hidden**: what the words mean; only rewards tell.
    - **Arguments**: ``env="MiniGrid-Fetch-5x5-N2-v0"`` (any world of minigrid or BabyAI, which need the extra
      ``[games]``), ``actions=["left", "right", "forward", "pickup"]``, ``env_kwargs``, arguments of the world;
      ``colours`` and ``things``, the words that are swapped, all by default: with ``things=["ball", "key"]`` a box is
      always called box, and of one word alone nothing is swapped.
    - **Observation**: a dict of ``image``, as of ``metarl/MiniGrid-v0``, ``Box(0, 1, (20, 7, 7))``, and ``words``, how
      often the mission has each word of a vocabulary of 41, and words that are not in it, ``Box(0, 9, (42,))``; the
      policy ``metarl.agents.small_images:WordsPolicy`` embeds words.
    - **Action**: ``Discrete(len(actions))``.
    - **Reward**: the world's: ``1 - 0.9 * steps / max_steps`` when the mission is done, else 0.
    - **Success**: the mission is done.
    - **Ends**: as the world does: here with any object that is picked up; truncated after 30 steps.
    - **Optimum**: not known; 1 is an upper bound.
    - **Splits**: a fifth of the permutations of four colours or more is only for testing and another for validation;
      those of the three things are shared. Each episode has a world and a mission of its own.
    - **Source**: minigrid and BabyAI, Chevalier-Boisvert et al. 2019 and 2023; swapped words are of this package.
    - **Versions**: v0, the first.
    """

    observation_reveals_task = True  # the words that are said, but not what they mean

    def __init__(
        self,
        render_mode: str | None = None,
        env: str = "MiniGrid-Fetch-5x5-N2-v0",
        actions: Sequence[str] = ("left", "right", "forward", "pickup"),
        env_kwargs: dict[str, Any] | None = None,
        colours: Sequence[str] = COLOUR_WORDS,
        things: Sequence[str] = THING_WORDS,
    ) -> None:
        super().__init__(render_mode, env, actions, env_kwargs)
        self._words = {
            "colours": chosen_words("colours", colours, COLOUR_WORDS),
            "things": chosen_words("things", things, THING_WORDS),
        }
        bag = spaces.Box(0.0, MOST_OF_ONE, (len(VOCABULARY) + 1,), np.float32)
        self.observation_space = spaces.Dict({"image": self.observation_space, "words": bag})
        sizes = {name: len(words) for name, words in self._words.items()}
        self.splits_share_tasks = sizes["colours"] < 4  # of which none are held out
        self.task_space = spaces.Dict({name: spaces.MultiDiscrete([size] * size) for name, size in sizes.items()})
        self.default_task = {name: np.arange(size) for name, size in sizes.items()}
        self._task = self.default_task

    def sample_tasks(self, n: int, rng: np.random.Generator, split: str) -> Any:
        """Return a batch of n tasks, with languages that belong to the split."""
        return {name: draw_permutations(len(words), n, rng, split) for name, words in self._words.items()}

    def check_task(self, task: Any) -> None:
        """Raise a ``ValueError`` if two words are replaced by the same."""
        refuse_no_permutation("colours", task["colours"])
        refuse_no_permutation("things", task["things"])

    def world_seed(self) -> int:
        """Return the seed of the next episode's world and mission, which the task does not fix."""
        return int(self.np_random.integers(task_tools.SEEDS))

    def seen(self, observation: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        """Return the cells and the words of the mission in the task's language."""
        return {
            "image": super().seen(observation),
            "words": bag_of(translate(observation["mission"], self._task, **self._words)),
        }

    def act(self, button: int) -> int:
        """Return minigrid's action of a button, which are not rewired here."""
        return self.buttons[button]
