"""Meta-optimisation across lifetimes: estimators of meta-gradients, and a loop that follows them.

gradient    by backpropagation through lifetimes
evolution   by evolution strategies
strategy    evolution strategies behind ask and tell; evosax_strategies, those of evosax
descend     steps of an optax transformation along the estimates
"""
