"""What can be wrong with what a user gave. Each message names the input, the fault and the remedy."""

from __future__ import annotations


class ClipError(ValueError):
    """Base of every error that is about the input and not about the program."""


class ImageError(ClipError):
    """An image that cannot be read."""


class LabelError(ClipError):
    """Labels, templates or texts that cannot be used."""


class WeightsError(ClipError):
    """A weights file that is missing, damaged, of another model, or not to be trusted."""


class TrainingError(ClipError):
    """Data or a checkpoint that cannot be trained on, or cannot be written; the message says what to do."""


class RequestError(ClipError):
    """Arguments, or a request's body, that make no sense."""


class MalformedError(RequestError):
    """A request's body that is not even JSON."""


class LimitError(RequestError):
    """More than a limit allows."""


class BusyError(ClipError):
    """A request that a server cannot take now, or has not finished in time."""
