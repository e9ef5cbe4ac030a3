"""Shards that are read from their beginning, wherever they lie."""
