"""Evaluate models: `datasets.py` and `known_datasets.py` read data sets, `evaluate.py` runs the model,
`metrics.py`, `probe.py` and `thresholds.py` compute, `report.py` writes tables and plots. `engine_check.py`
compares the engines on a user's images, `reference_values.py` a weights file with the published one.
"""
