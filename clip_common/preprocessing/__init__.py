"""An image file to what the image encoder sees; no framework."""
