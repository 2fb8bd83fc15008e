"""A preset of an experiment: a config and what it is for."""

from typing import Generic, NamedTuple, TypeVar

Config = TypeVar("Config")


class Preset(NamedTuple, Generic[Config]):
    """A config, and what it is for: where it runs, how long it takes, what it reaches."""

    config: Config
    description: str
