"""The CLIP models in paddle.nn: the only place above which Paddle is imported lazily."""
