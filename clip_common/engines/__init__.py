"""What runs a model: pixels or token ids in, features out; numpy at the seam."""
