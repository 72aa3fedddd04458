"""Exceptions for invalid user input. Each message names the input, the fault and the remedy."""

from __future__ import annotations

from .system.secrets import hide_secrets


class ClipError(ValueError):
    """Base class of all errors that are caused by input, not by a bug.

    Passwords and keys in addresses are removed from the message.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(hide_secrets(str(message)))


class ImageError(ClipError):
    """An image that cannot be read."""


class LabelError(ClipError):
    """Labels, templates or texts that cannot be used."""


class WeightsError(ClipError):
    """A weights file that is missing, damaged, for another model, or not trusted."""


class TrainingError(ClipError):
    """Training data or a checkpoint that cannot be used or written."""


class RequestError(ClipError):
    """Invalid arguments, or an invalid request body."""


class MalformedError(RequestError):
    """A request body that is not valid JSON."""


class LimitError(RequestError):
    """Input that exceeds a limit."""


class BusyError(ClipError):
    """The server is overloaded, or did not finish a request in time."""
