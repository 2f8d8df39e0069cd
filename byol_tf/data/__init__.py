"""Images: where they come from, how they are cropped and ordered."""
