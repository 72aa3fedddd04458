"""The logger of the package. Its name is fixed, because a packed copy of the package has another name."""

import logging

from .file_names import printable
from .secrets import hide_secrets

logger = logging.getLogger("clip_common")


def _on_one_line(record: logging.LogRecord) -> bool:
    """Escape line ends and control characters, which file names may contain, to prevent log injection;
    remove passwords and keys from addresses."""
    record.msg, record.args = printable(hide_secrets(record.getMessage())), ()
    return True


logger.addFilter(_on_one_line)
