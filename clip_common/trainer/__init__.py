"""The training loop shared by training clip_mini (`recipes/`) and adapting a module (`adaptation/`)."""

from .. import models as models  # before a worker does anything, see there
