"""The trainer of clip_mini: data from registry packages, training, evaluation, export. See README.md."""
