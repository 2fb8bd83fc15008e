"""Any learner, under any modulation, on any stream, improved by any meta-optimiser.

config           the settings, and the four choices by name
perceptron       the network, and how its weights are drawn
learners         what changes its weights in a lifetime
modulations      what multiplies its activations, weights or updates
streams          what it learns in a lifetime, and how it is scored
meta_optimisers  what improves theta across lifetimes
system           the four together, as a system that the training loop runs
presets          named settings
"""
