"""Pictures. Imports matplotlib, and so is imported only to draw."""
