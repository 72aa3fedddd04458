"""What can go wrong in a way that a user can mend."""

from __future__ import annotations


class TrainingError(Exception):
    """Data or a checkpoint that cannot be used, or cannot be written; the message says what to do."""
