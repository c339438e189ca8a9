"""What an evaluation found: every episode, its statistics, and the files that hold it."""

from metarl.results.combined import combine as combine
from metarl.results.evaluation import Evaluation as Evaluation
from metarl.results.kept import EvaluatedRun as EvaluatedRun
