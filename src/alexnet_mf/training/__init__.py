"""Recipes, the training loop and run folders, without any framework."""
