"""A module adapted to a user's own pictures: `material.py` reads and splits them, `batches.py` and
`trainers.py` feed the trainer, `ensemble.py` mixes what it made with what was there before, `adapt.py` is the
way from one end to the other.
"""
