"""The operators: one folder each, one container image each."""
