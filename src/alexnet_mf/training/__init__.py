"""Recipes and the one training loop; no framework inside."""
