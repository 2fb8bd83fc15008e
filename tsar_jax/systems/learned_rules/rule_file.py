"""Learned rules, and the files that hold them."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tsar_jax.errors import UserError, shown
from tsar_jax.networks.feedback_network import Feedback
from tsar_jax.systems.learned_rules.system import LearnedRuleConfig
from tsar_jax.training.run import write_atomically
from tsar_jax.training.seeds import lost_seeds, stack_seeds
from tsar_jax.untrusted.files import read_json

RULE = "rule.json"
"""Name of the file in a run's folder."""
FORMAT = 1
"""Version of the files' form."""
MAX_BYTES = 1 << 20
"""Largest size of a rule's file that is read: it holds a few lines, and may come from others."""


@dataclasses.dataclass(frozen=True)
class LearnedRule:
    """A rule with its coefficients, as a file holds it.

    terms: names of the rule's terms.
    coefficients: one for each term, or for each layer one for each term; finite.
    feedback: kind of the feedback weights.
    beta: sharpness of the softplus that it was learned with, positive.
    modules: Python modules that define its terms.
    held_out: number of the data's last classes that it was not learned on, at least 0.
    source: origin of the rule, in words.

    Raises:
        UserError: a value is impossible.
    """

    terms: tuple[str, ...]
    coefficients: tuple[float, ...] | tuple[tuple[float, ...], ...]
    feedback: Feedback = "fix"
    beta: float = 10.0
    modules: tuple[str, ...] = ()
    held_out: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("terms", "modules"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise UserError(f"{name} must be a list of names, but is {shown(texts)}.")
        if not isinstance(self.source, str):
            raise UserError(f"source must be a text, but is {shown(self.source)}.")
        values = np.asarray(self.coefficients, float)
        if values.shape[-1:] != (len(self.terms),) or values.ndim > 2:
            raise UserError(
                f"A rule of {len(self.terms)} terms has as many coefficients, or as many for each "
                f"layer, not an array of shape {list(values.shape)}."
            )
        if not np.isfinite(values).all():
            raise UserError("A rule's coefficients must be finite numbers.")
        if self.feedback not in ("fix", "sym", "sign"):
            raise UserError(f"feedback must be fix, sym or sign, but is {shown(self.feedback)}.")
        if type(self.held_out) is not int or self.held_out < 0:
            raise UserError(f"held_out must be a count of classes, but is {shown(self.held_out)}.")
        if type(self.beta) not in (int, float) or not 0 < self.beta < math.inf:
            raise UserError(f"beta must be positive, but is {shown(self.beta)}.")


def write_rule(path: Path, rule: LearnedRule) -> None:
    """Write a rule as JSON."""
    content = {"format": FORMAT, **dataclasses.asdict(rule)}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_rule(path: Path) -> LearnedRule:
    """Return the rule in a file.

    Raises:
        UserError: the file is missing, or holds no rule.
    """
    try:
        content = read_json(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"The rule {path} cannot be read ({error}): check the path.") from error
    known = {field.name for field in dataclasses.fields(LearnedRule)}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f'{path} is not a rule of format {FORMAT}: write one with "format", "terms" and '
            '"coefficients", or take the rule.json of a finished run.'
        )
    unknown = sorted(set(content) - known - {"format"})
    if unknown or not {"terms", "coefficients"} <= set(content):
        wrong = (
            f"unknown entry {shown(unknown[0])}"
            if unknown
            else 'it lacks "terms" or "coefficients"'
        )
        raise UserError(f"{path} is not a rule ({wrong}): its entries are {', '.join(known)}.")
    try:
        return LearnedRule(**{k: _frozen(v) for k, v in content.items() if k != "format"})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a rule ({error}): fix it, or train anew.") from error


def _frozen(value: Any) -> Any:
    """Return nested lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def learned_rule(config: LearnedRuleConfig, state: Any, source: str) -> LearnedRule:
    """Return the mean coefficients over the seeds that are not lost, as a rule.

    Args:
        config: config of the run.
        state: state after its last step, of one seed or several, as `train` returns it.
        source: origin of the rule, in words.
    """
    coefficients = np.asarray(stack_seeds(state).coefficients)
    mean = np.delete(coefficients, lost_seeds(state), axis=0).mean(0)
    return LearnedRule(
        terms=config.terms,
        coefficients=_frozen(mean.tolist()),
        feedback=config.feedback,
        beta=config.beta,
        modules=config.modules,
        held_out=config.held_out,
        source=source,
    )
