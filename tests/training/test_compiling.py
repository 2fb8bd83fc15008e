"""Trainings say that they compile before they do, a finished run that is resumed too."""

from toy_training import ToyConfig, make_data, make_toy

from tsar_jax.training.loop import train
from tsar_jax.training.run import Run


class Said:
    """Progress that keeps what is said."""

    def __init__(self):
        self.lines = []

    def update(self, step, *_):
        self.lines.append(step)

    def message(self, text):
        self.lines.append(text)

    def close(self): ...


def test_compiling_is_said_before_anything_is_traced(tmp_path):
    config = ToyConfig(steps=2, chunk=2)
    for resume in (False, True):
        said, traced = Said(), []
        toy = make_toy(config)

        def step(*arguments, said=said, traced=traced, toy=toy):
            traced.append(list(said.lines))
            return toy.step(*arguments)

        system = toy._replace(step=step)
        run = Run(tmp_path / "run", config, "toy", "cpu", resume)
        train(system, make_data(config.inputs), config, run, progress=said)
        assert traced[0][-1] == "compiling ..."
