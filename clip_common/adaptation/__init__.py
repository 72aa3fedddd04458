"""Adapt a module to a user's images: `task.py` has the options, `dataset.py` and `prepare.py` read and split
the images, `batches.py` and `trainers.py` train, `interpolation.py` averages the weights before and after,
`cache.py` adapts without training, and `adapt.py` runs it all.
"""
