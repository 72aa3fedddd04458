"""The trainer: what training clip_mini (`recipes/`) and adapting any module (`adaptation/`) share."""

from .. import models as models  # before a worker does anything, see there
