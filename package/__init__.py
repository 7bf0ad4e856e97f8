"""Finds the cell nuclei in whole-slide images."""
