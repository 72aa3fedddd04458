"""Benchmarks; they are not part of the test suite."""
