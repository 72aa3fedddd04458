"""The package's one logger. Its name is fixed: a packed copy of the package has another module name."""

import logging

from .file_names import printable

logger = logging.getLogger("clip_common")


def _on_one_line(record: logging.LogRecord) -> bool:
    """Names of files may hold anything; a message is one line and moves no cursor."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


logger.addFilter(_on_one_line)
