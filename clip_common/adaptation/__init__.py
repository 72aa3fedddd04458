"""A module adapted to a user's own images: `dataset.py` reads and splits them, `batches.py` and `trainers.py`
feed the trainer, `interpolation.py` mixes what it made with what was there before, `adapt.py` is the way from
one end to the other.
"""
