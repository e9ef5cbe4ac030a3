"""From a source to batches: the order of images, the loader, what cannot be read."""
