"""Finding images by words or by an image: an index over stored embeddings, and queries."""
