"""Bodies and worlds in which a policy lives: compiled ones, and simulators on the host."""
