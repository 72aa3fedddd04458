"""The command `clip-hub`: one file per verb; `options.py` has the options that verbs share."""
