"""Scripts for set-up, for drawing images and for rendering the module folders."""
