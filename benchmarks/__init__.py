"""How fast it is, peers in the same run, medians of several. `make bench`, or `python -m benchmarks routing`."""
