"""Load tests of a server; see `python -m benchmarks.load --help`."""
