"""Timings: never part of the test suite."""
