"""Texts to token ids, and label sets and templates to texts; no framework."""
