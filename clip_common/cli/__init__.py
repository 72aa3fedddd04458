"""`clip-hub`: one file a verb; `options.py` has the options that verbs share."""
