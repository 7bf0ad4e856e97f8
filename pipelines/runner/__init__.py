"""Runs a pipeline: `plan` says what is to be done, `execute` does it, as processes or in containers."""
