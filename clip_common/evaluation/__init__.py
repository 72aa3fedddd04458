"""How good a model is on images whose classes or captions are known: `datasets.py` reads them,
`evaluate.py` asks the model, `metrics.py` and `probe.py` judge, `report.py` writes what a person can read.
"""
