"""A module adapted to a user's own images: `task.py` says what is asked for, `dataset.py` and `prepare.py`
read and divide the images, `batches.py` and `trainers.py` feed the trainer, `interpolation.py` mixes what it
made with what was there before, `cache.py` does without training, `adapt.py` goes from one end to the other.
"""
