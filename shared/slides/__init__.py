"""Slides: one interface, several readers."""
