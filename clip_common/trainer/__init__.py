"""The trainer: what training clip_mini (`recipes/`) and adapting any module (`adaptation/`) share."""
