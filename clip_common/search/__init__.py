"""Search images by text or by image: an index over stored embeddings, queries, duplicates and clusters."""
