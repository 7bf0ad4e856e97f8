"""Nuclei as objects: found block by block, joined across borders, outlined, measured, and kept until the end."""
