"""Tar shards in a folder, read at random."""
