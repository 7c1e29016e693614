"""Benchmarks: one command for each figure that Drey claims.

`python -m bench NAME [--pvs N] [--runs N] --json FILE` runs one, `python -m bench all` runs all
and writes `bench/results/NAME.json`. Each figure is the median of at least five runs, each peer
(the ordinary way of doing the same) runs in turn with ours in the same life of the process.
"""
