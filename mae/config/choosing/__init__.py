"""Defaults that fit: from a look at the images and the machine to a size, a model and a recipe.

Each rule is a function of what was seen; whatever the user gives is kept, and later rules follow from it.
"""
