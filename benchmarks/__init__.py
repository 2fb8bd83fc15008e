"""How fast the hot paths are, beside what the machine could do at best: `make bench`.

machine    what the machine is and does: matrix products, streaming through memory, peak memory
measure    what a benchmark is, and how one is measured
suite      all benchmarks; another system adds its module's BENCHMARKS there
anml       meta-steps of ANML and OML, and the last layer's update at meta-test
anml_costs the arithmetic and the traffic of those, by formula
worker     one benchmark in a fresh process
"""
