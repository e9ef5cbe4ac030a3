"""Sources, decoding, transforms, statistics and the DataModule."""
