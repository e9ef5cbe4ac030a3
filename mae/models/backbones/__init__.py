"""Networks that turn images into tokens."""
