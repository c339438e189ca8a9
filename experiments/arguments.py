"""The command line of ``metarl``: its options, with errors as a single sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from metarl.version import __version__

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # the exit statuses beside 0
_CONFIG = "a shipped configuration (navigation), a TOML file"
_VARY = "a parameter of the environment that varies, as gravity=5..15, gravity=5..15:log, size=5..8:int, length=0.5,1,2"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"metarl: {message}; 'metarl --help' shows how it is called\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="metarl", description="Meta-reinforcement learning: train agents that adapt.")
    parser.add_argument("--version", action="version", version=f"metarl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser("train", help="meta-train, then test how the result adapts")
    train.add_argument("config", nargs="?", help=f"{_CONFIG}, or an environment (CartPole-v1, my_module:MyEnv-v0)")
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as inner.step_size=0.05")
    train.add_argument("--vary", action="append", default=[], metavar="NAME=LOW..HIGH", help=_VARY)
    train.add_argument("--name", help="the run's folder under --out; numbered configuration name by default")
    train.add_argument("--seed", help="another spelling of seed=N")
    train.add_argument("--device", help="another spelling of device=NAME: auto, cpu, cuda")
    train.add_argument("--out", type=Path, help="where run folders go (default: runs)")
    train.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run's folder; a finished one with more iterations, as learning.iterations=200",
    )
    train.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="SOURCE",
        help="start from the parameters of a run's folder, a checkpoint, or a PPO or A2C model of stable-baselines3",
    )
    train.add_argument("--quiet", action="store_true", help="print only the result, and errors")
    train.add_argument(
        "--profile",
        action="store_true",
        help="write a trace of one iteration for ui.perfetto.dev, and say what several processes send each other",
    )

    train.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="play and differentiate the tasks in N processes, to the same bits; as 'torchrun --nproc-per-node N -m "
        "metarl train ...'",
    )
    train.add_argument(
        "--rank-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long one of several processes may keep the others waiting (default: 300)",
    )

    init = commands.add_parser("init", help="print a configuration to edit, with the meaning of every setting")
    init.add_argument("config", nargs="?", help=f"{_CONFIG}, or an environment; as for train")
    init.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as inner.step_size=0.05")
    init.add_argument("--vary", action="append", default=[], metavar="NAME=LOW..HIGH", help=_VARY)

    evaluate = commands.add_parser("evaluate", help="evaluate a run again on test tasks")
    evaluate.add_argument("runs", nargs="+", type=Path, metavar="run", help="folders of runs")
    evaluate.add_argument("--protocol", help="steps, pearl, k-shot or generalization (default: the run's)")
    evaluate.add_argument(
        "--json",
        action="store_true",
        help="print JSON, of several runs that differ by their seeds put together, in place of tables",
    )
    evaluate.add_argument("--tasks", type=int, help="test tasks (default: the run's)")
    evaluate.add_argument("--episodes", type=int, help="for each task and step (default: the run's)")
    evaluate.add_argument(
        "--steps", type=int, help="adaptation steps, or earlier episodes of a trial (default: the run's)"
    )
    evaluate.add_argument("--seed", type=int, help="of tasks and episodes (default: the run's)")
    evaluate.add_argument("--device", help="auto, cpu, cuda (default: the run's)")

    compare = commands.add_parser(
        "compare", help="train several learners with several seeds; tables, a picture and a report"
    )
    compare.add_argument("config", help=f"{_CONFIG}, or an environment; as for train")
    compare.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs")
    compare.add_argument("--vary", action="append", default=[], metavar="NAME=LOW..HIGH", help=_VARY)
    compare.add_argument(
        "--learners",
        required=True,
        help="names, each with settings of its own where needed, as 'maml,scratch,scratch evaluation.steps=30'",
    )
    compare.add_argument("--seeds", type=int, default=3, help="seeds of each (default: 3)")
    compare.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, one thread each (default: 1, on all cores)",
    )
    compare.add_argument("--out", type=Path, default=Path("comparison"), help="the folder (default: comparison)")
    _add_sharing(compare, "run")

    sweep = commands.add_parser("sweep", help="search settings with Optuna, in a study that processes can share")
    sweep.add_argument("config", help=f"{_CONFIG}, or an environment; as for train")
    sweep.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUES",
        help="what is searched, as outer.learning_rate=1e-4..1e-2:log, inner.steps=1..5, policy.activation=tanh,relu; "
        "and settings of all trials",
    )
    sweep.add_argument("--vary", action="append", default=[], metavar="NAME=LOW..HIGH", help=_VARY)
    sweep.add_argument("--trials", type=int, default=20, help="in all, of all processes (default: 20)")
    sweep.add_argument("--seeds", type=int, default=1, help="of each trial, whose value is their mean (default: 1)")
    sweep.add_argument("--prune", action="store_true", help="stop trials that are worse than the median of the others")
    sweep.add_argument("--study", type=Path, default=Path("sweep"), help="the folder (default: sweep)")
    _add_sharing(sweep, "trial")

    picture = commands.add_parser("picture", help="draw how a run adapts to test tasks")
    picture.add_argument("run", type=Path, help="a run's folder")
    picture.add_argument("--out", type=Path, help="the file: .png, .svg or .pdf (default: adaptation.png in the run)")
    picture.add_argument("--tasks", type=int, help="test tasks the returns are of (default: the run's)")

    show = commands.add_parser("show", help="write a moving picture of a task before and after each adaptation step")
    show.add_argument("run", type=Path, help="a run's folder")
    show.add_argument("--task", help="the number of a test task, from 0, or a task as JSON (default: 0)")
    show.add_argument("--steps", type=int, help="adaptation steps, or earlier episodes of a trial (default: the run's)")
    show.add_argument("--episodes", type=int, help="played for each adaptation step (default: the run's)")
    show.add_argument("--seed", type=int, help="of the episodes (default: the run's)")
    show.add_argument("--deterministic", action="store_true", help="show the most likely actions, without noise")
    show.add_argument("--max-steps", type=int, metavar="N", help="stop an episode after N steps")
    show.add_argument(
        "--frames", type=int, metavar="N", help="show at most N pictures; of more, every 2nd, 4th, ... (default: 128)"
    )
    show.add_argument("--fps", type=float, help="pictures a second (default: the environment's own, at most 20)")
    show.add_argument("--format", choices=("gif", "mp4"), help="default: gif; mp4 needs the extra [video]")
    show.add_argument("--out", type=Path, help="the file, .gif or .mp4 (default: replays/<n>.gif in the run)")

    export = commands.add_parser(
        "export", help="write a policy into a file that acts without metarl: ONNX, torch.export"
    )
    export.add_argument("run", type=Path, help="a run's folder")
    export.add_argument(
        "--task",
        help="adapt to it first: the number of a test task, from 0, or a task as JSON (default: no adaptation)",
    )
    export.add_argument("--steps", type=int, help="adaptation steps (default: the run's)")
    export.add_argument("--episodes", type=int, help="episodes of adaptation, as for adapt (default: the run's)")
    export.add_argument("--seed", type=int, help="of the episodes (default: the run's)")
    export.add_argument("--format", choices=("onnx", "pt2"), help="default: onnx, which needs the extra [export]")
    export.add_argument("--out", type=Path, help="the file, .onnx or .pt2 (default: policy.onnx in the run)")

    report = commands.add_parser("report", help="write one HTML file on runs: figures, tables, how to repeat them")
    report.add_argument(
        "runs", nargs="+", type=Path, metavar="run", help="folders of runs, or a folder of runs, as compare makes"
    )
    report.add_argument("--out", type=Path, help="the file (default: report.html, or the next free number)")
    report.add_argument(
        "--format", default="", metavar="NAMES", help="of png,svg,csv: figures and tables as files of their own too"
    )

    check = commands.add_parser("check", help="say what breaks the contract of a family, one sentence a fault")
    check.add_argument("family", help="an id, or module:Id")
    check.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE", help="its constructor's arguments, as reward=sparse"
    )
    check.add_argument("--vary", action="append", default=[], metavar="NAME=LOW..HIGH", help=_VARY)

    envs = commands.add_parser("envs", help="list the environment families that are installed")
    envs.add_argument("--json", action="store_true", help="print JSON")

    settings = commands.add_parser("settings", help="say what settings mean: default, unit, values, who has them")
    settings.add_argument("name", nargs="?", help="a setting (inner.step_size), a section (inner), or a part of a name")

    learners = commands.add_parser("learners", help="list the meta-learners, for learner=NAME")
    learners.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_sharing(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--no-wait", action="store_true", help=f"end when no {what} is free, without waiting for other processes"
    )
    command.add_argument(
        "--submitit",
        metavar="JOBS",
        help="submit jobs that share the work: how many, and settings of submitit, as '4 slurm_partition=gpu'",
    )


def _name_first(options: argparse.Namespace) -> None:
    """Let the configuration be named after settings too: it is the first word that is none, as they have a ``=``."""
    words = [*([] if options.config is None else [options.config]), *options.overrides]
    if words and (options.config is None or "=" in options.config) and not words[0].endswith(".toml"):
        named = next((word for word in words if "=" not in word), None)
        options.config = named
        options.overrides = [word for word in words if word is not named]


# The commands with settings or arguments KEY=VALUE, and where in the options these are.
_WITH_SETTINGS = {**dict.fromkeys(("train", "init", "compare", "sweep"), "overrides"), "check": "arguments"}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options; an error exits with status 2 and a sentence."""
    parser = _parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    options, rest = parser.parse_known_args(arguments)
    options.words = list(sys.argv[1:] if arguments is None else arguments)
    # Settings may come before and after the options, which argparse does not support.
    settings = [text for text in rest if not text.startswith("-") and options.command in _WITH_SETTINGS]
    unknown = [text for text in rest if text not in settings]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}")
    if settings:
        into = _WITH_SETTINGS[options.command]
        setattr(options, into, [*getattr(options, into), *settings])
    if options.command in ("train", "init"):
        _name_first(options)
    options.words = list(arguments)
    return options
