"""Runs a pipeline: what is to be done (`plan`), and the doing (`execute`), as processes or in containers."""
