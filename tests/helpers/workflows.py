"""Looks into exported workflows."""

from __future__ import annotations

from typing import Any

from tests.helpers.argo_rules import containers

Object = dict[str, Any]

HEAD = "api-version: 0.4.0\nname: x\n"
ONE = "operators:\n- name: o\n  container: {image: a, command: [%s]}\n  output: [{path: /output}]\n"
"""The beginning of a definition, and one operator with a word for a command."""


def template(document: Object, name: str) -> Object:
    (found,) = (one for one in document["spec"]["templates"] if one["name"] == name)
    return found


def task(document: Object, name: str) -> Object:
    (found,) = (one for one in template(document, "pipeline")["dag"]["tasks"] if one["name"] == name)
    return found


def env(container: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def mounts(container: Object) -> dict[str, tuple[str, str, bool]]:
    return {
        one["mountPath"]: (one["name"], one.get("subPath", ""), one.get("readOnly", False))
        for one in container["volumeMounts"]
    }


def container_of(document: Object, name: str) -> Object:
    (found,) = containers(template(document, name))
    return found
