"""Zero-shot classification: embeddings of labels, and scores from cosines; no framework."""
