"""The training loop that every system shares; it knows nothing of any of them.

system        what a system is: init, step, evaluate
loop          `train`, and the settings it reads: `LoopConfig`
programs      what is compiled, once
run           a run's folder and its config.json
config        dataclasses to JSON and back
preset        a config under a name, and what it is for
files         all that is written while a run trains, by one process
metrics       metrics.jsonl, metrics.csv, TensorBoard
checkpoints   saves the state, verifies and restores it, skips damaged saves
initial       first weights taken from another run
arrays        what steps return beside scalars, as files
seeds         several seeds in one run
overview      a table of runs
rescue        saves a run whose folder is gone
tensorboard   event files
errors        why training can end early: TrainingDiverged, TrainingInterrupted
interruption  Ctrl-C and SIGTERM
progress      the line on the terminal
"""
