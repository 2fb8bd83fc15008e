"""Settings of a composition: four choices by name, and the sizes and rates of each."""

import dataclasses
import math
from typing import Any, Literal, get_args

from tsar_jax.data.episodes import Pixels
from tsar_jax.errors import (
    UserError,
    check_known,
    check_positive,
    check_rates,
    check_weights,
    check_widths,
    shown,
)
from tsar_jax.networks.feedback_network import Feedback
from tsar_jax.networks.hebbian_network import find_initialiser
from tsar_jax.plasticity.hebbian import find_rule
from tsar_jax.plasticity.learner import Remat
from tsar_jax.plasticity.methods import METHODS, Method
from tsar_jax.plasticity.methods.settings import settings_class
from tsar_jax.training.config import chosen_by, earlier
from tsar_jax.training.loop import LoopConfig

Encoder = Literal["conv", "pixels"]
Sharing = Literal["all", "layer", "synapse"]
Order = Literal["first", "second"]
Units = Literal["softplus", "tanh"]
Distribution = Literal["constant", "normal", "uniform"]
Descent = Literal["adam", "sgd"]

PERCEPTRON = "perceptron"
"""Name of the network that every learner can change."""


def _settings_class(learner: str) -> type[Any]:
    """Return the dataclass of a learner's settings, without fields where it is no method."""
    return settings_class(METHODS.get(learner, Method))


@dataclasses.dataclass(frozen=True)
class ComposeConfig(LoopConfig):
    """Settings of the meta-training of a composition.

    Raises:
        UserError: a value is impossible.
    """

    learner: str = "sgd"
    """What changes weights in a lifetime: sgd, adam, feedback_alignment, rule, hebbian, replay,
    fixed; the continual-learning methods er, der, derpp, clser, synergy, agem_r, gss, kder, mer; or
    one that a module of yours registers (--modules)."""
    settings: Any = dataclasses.field(
        default=None,
        metadata=chosen_by("learner", _settings_class, lambda learner, stored: stored)
        | earlier(None),
    )
    """Hyper-parameters of a learner that is a continual-learning method, from `method_settings`;
    None: as published for the stream that is most like this one."""
    modulation: str = "none"
    """What multiplies the learner's parts: none; activations (ANML's gate); weights (TSAR's
    regulation); layers (a signal for each layer, of input and error, on its updates); updates (one
    for each synapse, of the input, on its update); or one that a module of yours registers."""
    stream: str = "characters"
    """What a lifetime learns: characters (Omniglot's, one class after another), episodes (the same,
    scored on all classes of meta-training, as ANML's), handwriting (EMNIST, classes mixed), emnist
    (the same as published for learned rules, classes drawn with replacement), permuted (digits
    under one permutation of pixels after another), cart_pole, pendulum, or one that a module of
    yours registers."""
    meta_optimiser: str = "gradient"
    """What improves theta across lifetimes: gradient (through the lifetime), openai_es (whole
    lifetimes of a population), pes (parts of lifetimes), or one that a module of yours
    registers."""
    meta_learned: tuple[str, ...] = ()
    """Parts of theta that are meta-learned, by name: weights (initial ones), rates, coefficients,
    feedback, encoder, modulator. None named: all that the learner recommends, encoder and
    modulator. A lifetime draws the others anew, or has them as set here."""
    not_meta_learned: tuple[str, ...] = dataclasses.field(default=(), metadata=earlier(()))
    """Parts that are left out of those, where none is named in meta_learned; those that theta has
    not are no matter."""

    network: str = dataclasses.field(default=PERCEPTRON, metadata=earlier(PERCEPTRON))
    """Network whose weights change: perceptron, of the encoder's features; or, of learners sgd and
    adam, the published classifiers on images, convolutions included: anml, oml, tsar; or one that a
    module of yours registers."""
    encoder: Encoder = "conv"
    """Features of an image for a perceptron: conv, three convolutions that do not change in a
    lifetime; or its pixels. Observations that are vectors are features themselves."""
    channels: int = 8
    """Channels of the convolutions of encoder or network; an encoder has nine features for each."""
    hidden: tuple[int, ...] = ()
    """Units of the hidden layers between features and outputs; of the network oml one layer.
    Without one, errors are sent back through no weights, and feedback_alignment is the delta
    rule."""
    units: Units = dataclasses.field(default="softplus", metadata=earlier("softplus"))
    """Hidden units of the perceptron: softplus, or tanh as in Hebbian policies. The learner rule
    sends errors back through softplus."""
    initial: str | None = dataclasses.field(default=None, metadata=earlier(None))
    """Initial distribution of the perceptron's weights: uni, normal, xa_uni, ka_uni, sparse,
    uni_big, xa_uni_big, ones, zeros or default, see hebbian_evolve; None: Glorot's uniform."""
    beta: float = 10.0
    """Sharpness of the hidden layers' softplus, positive."""

    rate: float = 0.1
    """Initial learning rate of sgd, adam, replay and continual-learning methods, in each layer."""
    terms: tuple[str, ...] = ("pseudo_gradient", "ehebb", "oja")
    """Terms of the learned rule by name."""
    feedback: Feedback = "fix"
    """Weights through which errors are sent back in rules, see plasticity_meta_train."""
    initial_coefficient: float = 1e-2
    """Initial coefficient of the rule's first term; the others begin at 0."""
    hebbian_rule: str = "ABCD_lr"
    """Hebbian rule by its coefficients, see hebbian_evolve. In supervised streams the outputs that
    it sees are the target's."""
    sharing: Sharing = "layer"
    """What has Hebbian coefficients of its own: each synapse, each layer, or all share them."""
    distribution: Distribution = dataclasses.field(default="constant", metadata=earlier("constant"))
    """Initial Hebbian coefficients: constant, A at `scale`, eta at 1 and the others at 0; or all
    drawn, normal (standard) or uniform (from -1 to 1), times `scale`."""
    scale: float = 0.1
    """Initial Hebbian coefficient A of every synapse, or factor of those that are drawn."""
    buffer: int = 100
    """Examples that replay and continual-learning methods keep."""
    replayed: int = 4
    """Examples of a draw from the buffer, in each update."""

    modulator_encoder: Encoder = "conv"
    """What the modulator sees of an image: conv, three convolutions of its own, or the pixels."""
    modulator_channels: int = 4
    """Channels of the modulator's convolutions; its code has nine features for each."""
    modulator_bias: float = 0.0
    """Initial bias of gates before the sigmoid: -8 silences nearly all, 0 halves."""

    classes: int = 10
    """Classes of a lifetime in meta-training, at least 1; at most the stream's. Of permuted digits
    always ten."""
    learn: int = 5
    """Images of each class (permuted: of each task and class) that are learned, one update each."""
    query: int = 5
    """Other images of each class that score the lifetime. Of episodes in evaluations alone, which
    learn what it leaves of a class's images."""
    remember: int = dataclasses.field(default=64, metadata=earlier(64))
    """Random images of all classes that score a lifetime of episodes, beside those learned."""
    repeat_first: bool = dataclasses.field(default=False, metadata=earlier(False))
    """Whether the first image of episodes is learned twice, one update more, as in TSAR's
    release."""
    pixels: Pixels = dataclasses.field(default="unit", metadata=earlier("unit"))
    """Scale of the inputs of characters and episodes, see anml_meta_train."""
    tasks: int = 3
    """Tasks of a lifetime on permuted digits, one after another."""
    outputs: int = 200
    """Output units for characters and episodes, at least as many as classes: a lifetime's classes
    of characters have some of them, drawn at random; of episodes, each class has its own."""
    episode_steps: int | None = None
    """Most steps of a lifetime in an environment; None: as many as it has."""

    order: Order = "second"
    """Order of the meta-gradient: second, through the updates; or first, taking the gradients of
    sgd, adam and replay as constants. Other learners have the second."""
    remat: Remat = "store"
    """Strategy by which the backward pass gets a lifetime's states: from memory (store), by
    computing most of them again (rematerialise), or by inverting update after update (reconstruct),
    which rule and feedback_alignment can without modulation."""
    meta_descent: Descent = dataclasses.field(default="adam", metadata=earlier("adam"))
    """What follows the meta-optimiser's gradient: adam or sgd."""
    meta_rate: float = 1e-3
    """Learning rate across lifetimes, of the first meta-step."""
    meta_rate_decay: float = dataclasses.field(default=1.0, metadata=earlier(1.0))
    """Factor of meta_rate from one meta-step to the next, positive."""
    min_meta_rate: float = dataclasses.field(default=0.0, metadata=earlier(0.0))
    """Learning rate at which, or below, it no longer decays, at least 0."""
    lifetimes: int = 1
    """Lifetimes of a meta-step, or of each member of a population; of pes always one."""
    population: int = 64
    """Members of a population, an even number."""
    sigma: float = 0.02
    """Standard deviation of a population's noise, in the first meta-step."""
    sigma_decay: float = dataclasses.field(default=1.0, metadata=earlier(1.0))
    """Factor of sigma from one meta-step of openai_es to the next, positive."""
    min_sigma: float = dataclasses.field(default=0.0, metadata=earlier(0.0))
    """Standard deviation at which, or below, it no longer decays, at least 0."""
    weight_decay: float = dataclasses.field(default=0.0, metadata=earlier(0.0))
    """Factor of the mean square of what is meta-learned, at least 0; openai_es adds it to the loss
    of each member."""
    segment: int = 10
    """Updates of a part of a lifetime, after which pes moves theta; their number divides that of a
    lifetime on images."""

    eval_classes: int | None = None
    """Classes of a lifetime in evaluations, other ones than in meta-training but for permuted and
    emnist. None: 50 characters, or as many as in meta-training."""
    eval_lifetimes: int = 10
    """Lifetimes of an evaluation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(
            self,
            *("channels", "buffer", "replayed", "modulator_channels", "classes", "learn", "query"),
            *("tasks", "outputs", "episode_steps", "lifetimes", "segment", "eval_classes"),
            *("eval_lifetimes", "remember"),
        )
        check_rates(self, "beta", "rate", "scale", "meta_rate", "sigma")
        check_rates(self, "meta_rate_decay", "sigma_decay")
        check_weights(self, "min_meta_rate", "min_sigma", "weight_decay")
        check_widths(self, "hidden")
        find_rule(self.hebbian_rule)
        if self.initial is not None:
            find_initialiser(self.initial)
        for name, kind in (
            *(("encoder", Encoder), ("modulator_encoder", Encoder)),
            *(("sharing", Sharing), ("order", Order), ("units", Units)),
            *(("distribution", Distribution), ("meta_descent", Descent)),
        ):
            check_known(name, getattr(self, name), get_args(kind))
        check_known("remat strategy", self.remat, get_args(Remat))
        check_known("feedback", self.feedback, get_args(Feedback))
        check_known("scale of pixels", self.pixels, get_args(Pixels))
        for name in ("initial_coefficient", "modulator_bias"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} must be a number, but is {getattr(self, name)}.")
        if not isinstance(self.settings, _settings_class(self.learner) | None):
            raise UserError(
                f"settings must be those of the learner {self.learner}, but are "
                f"{shown(self.settings)}: leave them out, or make them with method_settings."
            )
        largest = max(self.classes, self.eval_classes or 1)
        if largest > self.outputs and self.stream in ("characters", "episodes"):
            raise UserError(
                f"outputs is {self.outputs}, but a lifetime has up to {largest} classes: raise it."
            )


def refuse_settings(config: ComposeConfig, choice: str, *names: str) -> None:
    """Raise UserError where a setting that a choice does not take differs from its default.

    Args:
        config: settings.
        choice: the choice, for the message, such as "learner rule".
        names: of the settings.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in names and value != field.default:
            raise UserError(
                f"{field.name} is {value}, but the {choice} does not take it: leave it at "
                f"{field.default}, or make another choice."
            )
