"""The package's one logger. Its name is fixed: a packed copy of the package has another module name."""

import logging

logger = logging.getLogger("clip_common")
