"""The ``metarl`` command. What is slow to import is imported by the subcommand that needs it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from metarl.version import __version__

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


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
    train.set_defaults(work=_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a finished run again on test tasks")
    evaluate.add_argument("run", type=Path, help="a run's folder")
    evaluate.add_argument("--tasks", type=int, default=500, help="test tasks (default: 500)")
    evaluate.add_argument("--episodes", type=int, default=20, help="for each task and step (default: 20)")
    evaluate.add_argument("--steps", type=int, default=3, help="adaptation steps (default: 3)")
    evaluate.add_argument("--seed", type=int, help="of tasks and episodes (default: the run's)")
    evaluate.add_argument("--device", help="auto, cpu, cuda (default: the run's)")
    evaluate.set_defaults(work=_evaluate)

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
    compare.set_defaults(work=_compare)

    picture = commands.add_parser("picture", help="draw how a finished run adapts to test tasks")
    picture.add_argument("run", type=Path, help="a run's folder")
    picture.add_argument("--out", type=Path, help="the file: .png, .svg or .pdf (default: adaptation.png in the run)")
    picture.add_argument("--tasks", type=int, default=100, help="test tasks the returns are of (default: 100)")
    picture.set_defaults(work=_picture)

    check = commands.add_parser("check", help="say what breaks the contract of a family, one sentence a fault")
    check.add_argument("family", help="an id, or module:Id")
    check.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE", help="its constructor's arguments, as reward=sparse"
    )
    check.set_defaults(work=_check)

    envs = commands.add_parser("envs", help="list the environment families that are installed")
    envs.add_argument("--json", action="store_true", help="print JSON")
    envs.set_defaults(work=_envs)

    learners = commands.add_parser("learners", help="list the meta-learners, for learner=NAME")
    learners.add_argument("--json", action="store_true", help="print JSON")
    learners.set_defaults(work=_learners)
    return parser


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options; leaves with status 2 and a sentence where there is a mistake in it."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # Settings may stand on either side of the options, which argparse does not allow.
    settings = [text for text in rest if not text.startswith("-") and options.command in ("train", "compare")]
    unknown = [text for text in rest if text not in settings]
    if unknown:
        parser.error(f"unknown argument {unknown[0]!r}")
    if settings:
        options.overrides = [*options.overrides, *settings]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0, 1 where training failed, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    options = parse(arguments)
    # Families of one's own, module:Id, lie in the folder one works in.
    sys.path.append(str(Path.cwd()))
    try:
        return int(options.work(options))
    except KeyboardInterrupt:
        return _complain("stopped", INTERRUPTED)


def _complain(message: str, status: int = BAD_INPUT) -> int:
    sys.stderr.write(f"metarl: {message}\n")
    return status


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _train(options: argparse.Namespace) -> int:
    from metarl.envs import RolloutError
    from metarl.experiments import training

    try:
        if options.resume is not None:
            if options.config is not None or options.name or options.seed or options.out:
                raise ValueError("--resume goes on with a run as it was configured; give only --device beside it")
            run, learner = training.resume_run(options.resume, options.device)
        else:
            standard, settings = _settings(options)
            run, learner = training.start_run(settings, options.out or Path("runs"), options.name, standard)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))

    try:
        with training.sigterm_raises():
            evaluation = training.finish_run(run, learner, profiled=options.profile)
    except (RolloutError, FloatingPointError) as error:
        return _complain(
            f"{_one_line(error)}; the checkpoint after iteration {training.saved_iteration(run)} is in {run.last}",
            FAILED,
        )
    except (KeyboardInterrupt, training.Terminated) as stop:
        status = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
        return _complain(
            f"stopped; the checkpoint after iteration {training.saved_iteration(run)} is in {run.last}; go on with: "
            f"{training.program('metarl')} train --resume {shlex.quote(str(run.folder))}",
            status,
        )
    finally:
        learner.close()
    print(training.closing_words(run, evaluation))
    return 0


def _settings(options: argparse.Namespace) -> Any:
    from metarl.experiments.configuration import parse_override, read_configuration

    if options.config is None:
        raise ValueError("no configuration is given; name one, as in 'metarl train navigation'")
    overrides, faults = [], []
    for text in options.overrides:
        try:
            overrides.append(parse_override(text))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    if options.seed is not None:
        overrides.append(parse_override(f"seed={options.seed}"))
    if options.device is not None:
        overrides.append(("device", options.device))
    return read_configuration(options.config, overrides)


def _evaluate(options: argparse.Namespace) -> int:
    from metarl.envs import RolloutError
    from metarl.experiments import training

    try:
        evaluation, path = training.evaluate_run(
            options.run,
            tasks=options.tasks,
            episodes=options.episodes,
            steps=options.steps,
            seed=options.seed,
            device=options.device,
        )
    except (ValueError, TypeError, OSError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    print(f"{evaluation.table()}\n\nWritten to {path}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from metarl.experiments import compare, comparison, training
    from metarl.experiments.configuration import parse_override

    try:
        for name in ("seeds", "parallel"):
            if getattr(options, name) < 1:
                raise ValueError(f"--{name} is {getattr(options, name)}; expected a whole number of at least 1")
        overrides = [parse_override(text) for text in options.overrides]
        rows = compare.parse_rows(options.learners)
        jobs = compare.plan(options.config, rows, options.seeds, options.out, overrides)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    try:
        with training.sigterm_raises():
            failed = compare.run_all(jobs, options.out, options.parallel)
    except (KeyboardInterrupt, training.Terminated) as stop:
        status = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
        return _complain("stopped; the same command goes on where it stopped", status)
    for sentence in failed:
        _complain(sentence)
    entries = compare.read_entries(jobs, options.out)
    if entries:
        print(comparison.write_tables(entries, options.out))
        comparison.draw(entries, options.out / "comparison.png")
        print(f"Written to {options.out / 'comparison.md'}, comparison.csv, differences.csv and comparison.png")
    return FAILED if failed else 0


def _picture(options: argparse.Namespace) -> int:
    from metarl.envs import RolloutError
    from metarl.experiments.picture import draw_picture

    out = options.out or options.run / "adaptation.png"
    try:
        draw_picture(options.run, out, options.tasks)
    except (ValueError, TypeError, OSError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    print(f"Written to {out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from metarl.envs import check_family
    from metarl.experiments.configuration import parse_override

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            faults = check_family(options.family, **dict(parse_override(text) for text in options.arguments))
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    for fault in faults:
        print(fault)
    for warning in caught:
        print(f"warning: {warning.message}")
    if not faults:
        print(f"{options.family}: no fault found")
    return 1 if faults else 0


def _envs(options: argparse.Namespace) -> int:
    from metarl.experiments.families import describe_families

    families = describe_families()
    if options.json:
        print(json.dumps(families, indent=1))
        return 0
    for family in families:
        if family["fault"] is not None:
            print(f"{family['id']}  (from {family['source']})  cannot be used: {family['fault']}")
        else:
            print(f"{family['id']}  (from {family['source']})")
            print(f"    task: {family['task']}")
            print(f"    observation: {family['observation']}; action: {family['action']}")
            known = "known" if family["oracle"] else "not known"
            print(f"    steps: {family['max_episode_steps'] or 'its own'}; optimum: {known}")
    return 0


def _learners(options: argparse.Namespace) -> int:
    from metarl.learners.registry import describe_learners

    learners = describe_learners()
    if options.json:
        print(json.dumps(learners, indent=1))
        return 0
    for learner in learners:
        print(f"{learner['name']}  ({learner['class']}, {learner['source']})")
        print(f"    {learner['summary']}")
        if len(learner["updates"]) > 1:
            print(f"    outer.update: {', '.join(learner['updates'])}")
    return 0
