"""Settings of a transfer of one run, and the name of the files that it writes."""

import dataclasses

from tsar_jax.errors import UserError
from tsar_jax.systems.episodic.targets import check_domain
from tsar_jax.systems.episodic.trained import join_names
from tsar_jax.systems.episodic.transfer import TransferConfig
from tsar_jax.systems.episodic.tsar import (
    TRANSFERRED,
    TsarConfig,
    learns_as_published,
    plastic_after,
)
from tsar_jax.training.config import earlier


@dataclasses.dataclass(frozen=True)
class TransferArguments(TransferConfig):
    """Settings of a transfer of one run."""

    target: str = "mini_imagenet"
    """The new domain: mini_imagenet, cifar100, omniglot, or the name of images of your own."""
    baselines: bool = False
    """Whether the same network is transferred untrained too (from scratch)."""
    plastic: tuple[str, ...] | None = dataclasses.field(default=None, metadata=earlier(None))
    """Parameters that learn, by name (all: nothing is frozen). None: as published, all but the
    encoder of TSAR, all but the neuromodulatory network's trunk of ANML."""
    rln: int | None = dataclasses.field(default=None, metadata=earlier(None))
    """Number of layers that stay frozen, the first ones, as the releases name what learns: a
    convolution, a norm and a dense layer count as one each (0: nothing is frozen). None: as
    published, 6."""
    step: int | None = None
    """Step of the checkpoint that is transferred. None: the newest."""
    number: int = dataclasses.field(default=0, metadata=earlier(0))
    """Seed that is transferred of a run of several, counted from 0."""
    name: str | None = None
    """Name of the files written. None: target and condition, and what is not as in preset cpu, such
    as 600x15 for classes and images, or retention where the learned images are scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_domain(self.target)
        if self.plastic is not None and not self.plastic:
            raise UserError("plastic names nothing: name what learns, or all.")
        if self.plastic is not None and self.rln is not None:
            raise UserError("plastic and rln both say what learns: leave one of them out.")


CPU = TransferConfig(test=True, rates=(3e-3, 1e-3, 3e-4), draws=1, fresh_draws=False, runs=1)
USUAL = {
    "mini_imagenet": CPU,
    "cifar100": CPU,
    "omniglot": dataclasses.replace(CPU, learn=10),  # half of a class's 20 images
}
"""Transfers whose files are named after target and condition alone."""

SMOKE = dataclasses.replace(CPU, classes=3, learn=2, rates=(1e-3, 1e-2))


def names_of_plastic(arguments: TransferArguments, config: TsarConfig) -> tuple[str, ...]:
    """Return the names of the parameters that learn, as plastic or rln say, or as published."""
    if arguments.rln is not None:
        return plastic_after(config, arguments.rln)
    return TRANSFERRED[config.model] if arguments.plastic is None else arguments.plastic


def default_name(arguments: TransferArguments, config: TsarConfig) -> str:
    """Return the name of a transfer by what it measures, such as omniglot-random-retention.

    Settings that say how exactly it is measured (rates, draws, runs, seed) are left out.

    Args:
        config: the run's.

    Raises:
        UserError: no parameter is called as plastic says.
    """
    usual = USUAL.get(arguments.target, CPU)
    parts: list[str] = [arguments.target, arguments.condition]
    if arguments.condition == "mixed" and arguments.mixed != usual.mixed:
        parts[-1] += str(arguments.mixed)
    if (arguments.classes, arguments.learn) != (usual.classes, usual.learn):
        parts.append(f"{arguments.classes}x{arguments.learn}")
    if arguments.score not in (None, arguments.learn):
        parts.append(f"score{arguments.score}")
    if not arguments.test:
        parts.append("retention")
    parts += [option for option in ("iid", "reset") if getattr(arguments, option)]
    if not learns_as_published(config, names_of_plastic(arguments, config)):
        names = arguments.plastic
        parts.append(f"rln{arguments.rln}" if names is None else f"plastic-{join_names(names)}")
    if arguments.head_bias != usual.head_bias:
        parts.append(f"bias{arguments.head_bias:g}")
    if arguments.step is not None:
        parts.append(f"step{arguments.step}")
    if arguments.number:
        parts.append(f"number{arguments.number}")
    return "-".join(parts)
