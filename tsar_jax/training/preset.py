"""Named settings of an experiment."""

from typing import Generic, NamedTuple, TypeVar

Config = TypeVar("Config")


class Preset(NamedTuple, Generic[Config]):
    """A config with a description: where it runs, how long it takes, what it reaches."""

    config: Config
    description: str
