"""From a stored image to the pixels that a model sees: decoding, crops, augmentation."""
