"""Makes clip_mini: data from packages, training, evaluation, export. See README.md."""
