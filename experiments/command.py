"""The ``metarl`` command. Modules that are slow to import are imported only by the subcommands that need them."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metarl.experiments import streams
from metarl.experiments.arguments import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED, parse
from metarl.files import in_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    It is 0 for success, 1 if training failed or a file cannot be written, 2 for bad input, 130 after Ctrl-C, and 143
    after SIGTERM.
    """
    streams.open_missing()
    try:
        options = parse(arguments)
        # So that module:Id finds the user's modules in the current folder.
        sys.path.append(str(Path.cwd()))
        with streams.warnings_in_sentences():
            return _WORK[options.command](options)
    except KeyboardInterrupt:
        return _complain("stopped", INTERRUPTED)
    except OSError as error:
        return _complain(in_words(error), FAILED)
    finally:
        streams.flush()


def _complain(message: str, status: int = BAD_INPUT) -> int:
    streams.complain(message)
    return status


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _train(options: argparse.Namespace) -> int:
    from metarl.experiments import training

    try:
        with training.sigterm_raises():
            return _train_or_say_why_not(options)
    except training.Terminated:
        return _complain("stopped", TERMINATED)


def _train_or_say_why_not(options: argparse.Namespace) -> int:
    from metarl.distributed import launched
    from metarl.envs import RolloutError
    from metarl.experiments.several import launch, ranks

    try:
        _refuse_processes(options)
        if launched():
            begin, finish = functools.partial(_begin, options), functools.partial(_finish, options)
            return ranks.train(options, functools.partial(_new_settings, options), begin, finish)
        if options.processes is not None and options.processes > 1:
            return launch.start(options.processes, options.words)
        run, learner = _begin(options)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    try:
        return _finish(options, run, learner)
    finally:
        learner.close()
        run.unlock()


def _refuse_processes(options: argparse.Namespace) -> None:
    """Refuse numbers of processes and of seconds that cannot be, and one that torchrun contradicts."""
    from metarl.distributed import launched
    from metarl.experiments.several import launch

    count = options.processes
    if count is not None and count < 1:
        raise ValueError(f"--processes is {count}; expected a whole number of at least 1")
    if not 0 < options.rank_timeout < float("inf"):
        raise ValueError(f"--rank-timeout is {options.rank_timeout}; expected a number of seconds above 0")
    if launch.restarts() and options.name is None and options.resume is None:
        raise ValueError(
            "torchrun --max-restarts starts the same command again, which would begin another run; name the run, as in "
            "--name mine, so that it goes on with it"
        )
    if launched() and count not in (None, int(os.environ["WORLD_SIZE"])):
        raise ValueError(
            f"--processes is {count}, but torchrun has started {os.environ['WORLD_SIZE']} processes already; leave "
            "--processes out"
        )


def _new_settings(options: argparse.Namespace) -> Any:
    """Return the settings of a new run; None where one is resumed."""
    return None if options.resume is not None else _settings(options)[1]


def _begin(options: argparse.Namespace, count: int = 1) -> Any:
    """Make the folder of a new run, or open that of one that was begun, to go on with so many processes."""
    from metarl.experiments import training
    from metarl.experiments.configuration import how_sized, is_sized
    from metarl.experiments.several import launch

    if options.resume is not None:
        if options.vary:
            raise ValueError("--resume goes on with a run as it was configured; leave --vary out")
        return training.resume_run(options.resume, _resumed_settings(options), count)
    out = options.out or Path("runs")
    if launch.restarts() and training.was_begun(out, options.name):
        return training.resume_run(out / options.name, ranks=count)
    standard, settings = _settings(options)
    if is_sized(options.config) and not options.quiet:
        streams.complain(how_sized(options.config, settings))
    return training.start_run(settings, out, options.name, standard, options.source, count)


def _finish(options: argparse.Namespace, run: Any, learner: Any, group: Any = None) -> int:
    """Train and test, as rank 0 of a group or alone; say what became of it, and return the exit status."""
    from metarl.envs import RolloutError
    from metarl.experiments import training
    from metarl.experiments.several.profiling import Profile, Traffic
    from metarl.experiments.several.ranks import Ended, watched

    who = "" if group is None else "rank 0: "
    traffic = [] if group is None or not options.profile else [Traffic(group)]
    missing = learner.given_settings.learning.iterations - learner.iteration
    callbacks = [*([Profile(run.folder, missing)] if options.profile else []), *traffic]
    try:
        if not options.quiet:
            streams.say(training.opening_words(run, learner))
        with contextlib.nullcontext() if group is None else watched(group):
            evaluation = training.finish_run(run, learner, progress_bar=not options.quiet, callbacks=callbacks)
    except Ended as end:
        return _complain(f"{end}; {training.what_is_kept(run)}; {training.how_to_go_on(run)}", end.status)
    except (RolloutError, FloatingPointError, ValueError) as error:
        return _complain(f"{who}{_one_line(error)}; {training.what_is_kept(run)}", FAILED)
    except OSError as error:
        return _complain(f"{in_words(error)}; {training.what_is_kept(run)}; {training.how_to_go_on(run)}", FAILED)
    except KeyboardInterrupt as stop:
        status = TERMINATED if isinstance(stop, training.Terminated) else INTERRUPTED
        return _complain(f"stopped; {training.what_is_kept(run)}; {training.how_to_go_on(run)}", status)
    for each in traffic:
        streams.say(f"{each.in_words()}\n")
    streams.say(training.closing_words(run, evaluation))
    return 0


def _resumed_settings(options: argparse.Namespace) -> list[tuple[str, Any]]:
    """Return the settings that are given beside ``--resume``."""
    given = [*([] if options.config is None else [options.config]), *options.overrides]
    if any("=" not in text for text in given) or options.name or options.seed or options.out or options.source:
        raise ValueError(
            "--resume goes on with a run as it was configured; give only --device, --quiet, --profile and settings "
            "beside it, as learning.iterations=200"
        )
    return [*_overrides(given), *([] if options.device is None else [("device", options.device)])]


def _overrides(texts: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the settings of a command line.

    Raises:
        ValueError: some are no settings; all are named.
    """
    from metarl.experiments.configuration import parse_override

    found, faults = [], []
    for text in texts:
        try:
            found.append(parse_override(text))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    return found


def _settings(options: argparse.Namespace) -> Any:
    from metarl.experiments.configuration import parse_override, read_configuration

    if options.config is None:
        first = f" before {options.overrides[0]}" if options.overrides else ""
        raise ValueError(
            f"no configuration is given; name one or an environment{first}, as in 'metarl {options.command} navigation'"
            f" or 'metarl {options.command} CartPole-v1 --vary gravity=5..15'"
        )
    overrides = _overrides(options.overrides)
    if getattr(options, "seed", None) is not None:
        overrides.append(parse_override(f"seed={options.seed}"))
    if getattr(options, "device", None) is not None:
        overrides.append(("device", options.device))
    return read_configuration(options.config, overrides, options.vary)


def _init(options: argparse.Namespace) -> int:
    from metarl.experiments.start.template import template

    try:
        with streams.others_to_stderr():
            _, settings = _settings(options)
        text = template(settings)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    streams.say(text)
    return 0


def _explain_settings(options: argparse.Namespace) -> int:
    from metarl.experiments.start.settings_page import listing

    try:
        text = listing(options.name)
    except ValueError as error:
        return _complain(_one_line(error))
    streams.say(text)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from metarl.envs import RolloutError
    from metarl.experiments import training
    from metarl.results import combine
    from metarl.results.document import text_of

    asked = {name: getattr(options, name) for name in ("tasks", "episodes", "steps", "seed", "device", "protocol")}
    evaluations = []
    try:
        if options.json:
            training.refuse_different_runs(options.runs)
        for run in options.runs:
            with streams.others_to_stderr():
                evaluation, path, standing = training.evaluate_run(run, **asked)
            evaluations.append(evaluation)
            written = f"Written to {path}{standing}"
            if options.json:
                streams.complain(written)
            else:
                streams.say(f"{evaluation.table()}\n\n{written}")
        if options.json:
            streams.say(text_of(combine(evaluations).to_json()).rstrip())
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from metarl.experiments.sharing.commands import run_compare

    return run_compare(options, main)


def _sweep(options: argparse.Namespace) -> int:
    from metarl.experiments.sharing.commands import run_sweep

    return run_sweep(options, main)


def _picture(options: argparse.Namespace) -> int:
    from metarl.envs import RolloutError
    from metarl.experiments.picture import draw_picture

    out = options.out or options.run / "adaptation.png"
    try:
        standing = draw_picture(options.run, out, options.tasks)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    streams.say(f"Written to {out}{standing}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from metarl.experiments.using.show import show_run

    names = ("steps", "episodes", "seed", "deterministic", "max_steps", "frames", "fps")
    asked = {name: getattr(options, name) for name in names}
    return _said(lambda: show_run(options.run, options.task, options.out, options.format, **asked))


def _export(options: argparse.Namespace) -> int:
    from metarl.experiments.using.export import export_run

    names = ("task", "out", "steps", "episodes", "seed")
    asked = {name: getattr(options, name) for name in names}
    return _said(lambda: export_run(options.run, kind=options.format, **asked))


def _said(work: Callable[[], str]) -> int:
    """Say what work returns, or its error in one sentence; return the exit status."""
    from metarl.envs import RolloutError

    try:
        with streams.others_to_stderr():
            words = work()
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    except RolloutError as error:
        return _complain(_one_line(error), FAILED)
    streams.say(words)
    return 0


def _report(options: argparse.Namespace) -> int:
    from metarl.experiments.reporting import write_report

    try:
        formats = [name.strip() for name in options.format.split(",") if name.strip()]
        written = write_report(options.runs, options.out, formats)
    except ValueError as error:
        return _complain(_one_line(error))
    for fault in written.faults:
        streams.complain(fault)
    streams.say(f"Written to {written.page}{_and_more(len(written.files))}")
    return 0


def _and_more(count: int) -> str:
    return f", with {count} more file{'' if count == 1 else 's'} beside it" if count else ""


def _check(options: argparse.Namespace) -> int:
    from metarl.envs import check_family
    from metarl.experiments.configuration import parse_override
    from metarl.experiments.start.environments import varied

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            arguments = dict(parse_override(text) for text in options.arguments)
            family, arguments = varied(options.family, options.vary, arguments)
            faults = check_family(family, **arguments)
    except (ValueError, TypeError) as error:
        return _complain(_one_line(error))
    for fault in faults:
        streams.say(fault)
    for warning in caught:
        streams.say(f"warning: {warning.message}")
    if not faults:
        streams.say(f"{options.family}: no fault found")
    return 1 if faults else 0


def _envs(options: argparse.Namespace) -> int:
    from metarl.experiments.families import describe_families

    families = describe_families()
    if options.json:
        streams.say(json.dumps(families, indent=1))
        return 0
    for family in families:
        if family["fault"] is not None:
            streams.say(f"{family['id']}  (from {family['source']})  cannot be used: {family['fault']}")
        else:
            streams.say(f"{family['id']}  (from {family['source']})")
            streams.say(f"    task: {family['task']}")
            streams.say(f"    observation: {family['observation']}; action: {family['action']}")
            known = "known" if family["oracle"] else "not known"
            streams.say(f"    steps: {family['max_episode_steps'] or 'its own'}; optimum: {known}")
    return 0


def _learners(options: argparse.Namespace) -> int:
    from metarl.learners.registry import describe_learners

    learners = describe_learners()
    if options.json:
        streams.say(json.dumps(learners, indent=1))
        return 0
    for learner in learners:
        streams.say(f"{learner['name']}  ({learner['class']}, {learner['source']})")
        streams.say(f"    {learner['summary']}")
        if len(learner["updates"]) > 1:
            streams.say(f"    outer.update: {', '.join(learner['updates'])}")
    return 0


_WORK: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "init": _init,
    "evaluate": _evaluate,
    "compare": _compare,
    "sweep": _sweep,
    "picture": _picture,
    "show": _show,
    "export": _export,
    "report": _report,
    "check": _check,
    "envs": _envs,
    "learners": _learners,
    "settings": _explain_settings,
}
