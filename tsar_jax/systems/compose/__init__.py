"""Any learner, under any modulation, on any stream, improved by any meta-optimiser.

config           the settings, and the four choices by name
networks         whose weights change in a lifetime
perceptron       the network that every learner can change, and how its weights are drawn
learners         what changes the weights: a file each, and the methods of continual learning
modulations      what multiplies its activations, weights or updates
streams          what it learns in a lifetime, and how it is scored
meta_optimisers  what improves theta across lifetimes
composition      learner and modulation, and what they see of a stream's inputs
lifetimes        one lifetime, and its loss
system           the four together, as a system that the training loop runs
presets          named settings
comparison       compositions compared: tables
figures          and figures
"""
