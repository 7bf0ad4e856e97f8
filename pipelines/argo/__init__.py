"""Writes a pipeline as a Workflow of Argo, for a Kubernetes cluster."""
