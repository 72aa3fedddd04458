"""The trainer: what training clip_mini (`training/`) and adapting any module (`adaptation/`) share."""
