"""From a source to batches: the order of images, the loader, decoding on the device, what cannot be read."""
