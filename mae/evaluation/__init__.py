"""Frozen features and what can be measured on them."""
