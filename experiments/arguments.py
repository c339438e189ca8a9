"""The command line of ``metarl``: its options, with errors as a single sentence."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from metarl.version import __version__

BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"metarl: {message}; 'metarl --help' shows how it is called\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="metarl", description="Meta-reinforcement learning: train agents that adapt.")
    parser.add_argument("--version", action="version", version=f"metarl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser("train", help="meta-train, then test how the result adapts")
    train.add_argument("config", nargs="?", help="a shipped configuration (navigation) or a TOML file")
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as inner.step_size=0.05")
    train.add_argument("--name", help="the run's folder under --out; numbered configuration name by default")
    train.add_argument("--seed", help="another spelling of seed=N")
    train.add_argument("--device", help="another spelling of device=NAME: auto, cpu, cuda")
    train.add_argument("--out", type=Path, help="where run folders go (default: runs)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run's folder")
    train.add_argument("--profile", action="store_true", help="write a trace of one iteration for ui.perfetto.dev")

    evaluate = commands.add_parser("evaluate", help="evaluate a finished run again on test tasks")
    evaluate.add_argument("run", type=Path, help="a run's folder")
    evaluate.add_argument("--tasks", type=int, default=500, help="test tasks (default: 500)")
    evaluate.add_argument("--episodes", type=int, default=20, help="for each task and step (default: 20)")
    evaluate.add_argument("--steps", type=int, help="adaptation steps (default: 3), or earlier episodes of a trial")
    evaluate.add_argument("--seed", type=int, help="of tasks and episodes (default: the run's)")
    evaluate.add_argument("--device", help="auto, cpu, cuda (default: the run's)")

    compare = commands.add_parser("compare", help="train several learners with several seeds; a table and a picture")
    compare.add_argument("config", help="a shipped configuration (navigation) or a TOML file")
    compare.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all runs")
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

    picture = commands.add_parser("picture", help="draw how a finished run adapts to test tasks")
    picture.add_argument("run", type=Path, help="a run's folder")
    picture.add_argument("--out", type=Path, help="the file: .png, .svg or .pdf (default: adaptation.png in the run)")
    picture.add_argument("--tasks", type=int, default=100, help="test tasks the returns are of (default: 100)")

    check = commands.add_parser("check", help="say what breaks the contract of a family, one sentence a fault")
    check.add_argument("family", help="an id, or module:Id")
    check.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE", help="its constructor's arguments, as reward=sparse"
    )

    envs = commands.add_parser("envs", help="list the environment families that are installed")
    envs.add_argument("--json", action="store_true", help="print JSON")

    learners = commands.add_parser("learners", help="list the meta-learners, for learner=NAME")
    learners.add_argument("--json", action="store_true", help="print JSON")
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options; an error exits with status 2 and a sentence."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # Settings may come before and after the options, which argparse does not support.
    settings = [text for text in rest if not text.startswith("-") and options.command in ("train", "compare")]
    unknown = [text for text in rest if text not in settings]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}")
    if settings:
        options.overrides = [*options.overrides, *settings]
    return options
