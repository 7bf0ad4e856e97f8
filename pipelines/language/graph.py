"""Joins inputs to the outputs that they read, and puts the operators in order."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Sequence
from dataclasses import replace

from nuclei_segmentation.pipelines.language.findings import Findings, Place, shown
from nuclei_segmentation.pipelines.language.model import Input, Operator, Output
from nuclei_segmentation.pipelines.language.operators import Draft


def join(drafts: Sequence[Draft], findings: Findings) -> tuple[Operator, ...]:
    """Return the operators in topological order; those that could not be read are left out.

    Source: pages *pipelines*, *operator*, *names*: names are unique whatever their case, and the graph has no cycle.

    Parameters
    ----------
    drafts : Sequence of Draft
        In the order of the file.
    findings : Findings
        Takes what is wrong.
    """
    by_name: dict[str, Draft] = {}
    for one in drafts:
        if not one.name:
            continue
        first = by_name.setdefault(one.name.lower(), one)
        if first is not one:
            place = _at(one.operator, "name", one.place)
            findings.add(place, "duplicate", f"operator {shown(one.name)} stands twice (case does not matter)",
                         f"another name than that of line {first.place.line}")  # fmt: skip
    known = not any(one.pending for one in drafts)
    joined = [_joined(one, by_name, findings, known) for one in drafts]
    edges = [_upstream(one, by_name) for one in drafts]
    order = _order(drafts, edges, findings)
    return tuple(operator for operator in (joined[number] for number in order) if operator is not None)


def _at(thing: Operator | Input | Output | None, part: str, other: Place) -> Place:
    return other if thing is None else thing.places.get(part, thing.places.get("", other))


def _joined(one: Draft, by_name: dict[str, Draft], findings: Findings, known: bool) -> Operator | None:
    inputs = tuple(_source(item, one, by_name, findings, known) for item in one.interface.inputs)
    return None if one.operator is None else replace(one.operator, inputs=inputs)


def _source(item: Input, reader: Draft, by_name: dict[str, Draft], findings: Findings, known: bool) -> Input:
    """Return an input with its source found. Source: page *input*; types must be those of the output that is read.

    `known` says that all operators have their names, so that one which is not found does not exist.
    """
    if item.source is None or findings.full:
        return item
    place = _at(item, "from", reader.place)
    source = by_name.get(item.source.lower())
    if source is None and not known:
        return item
    if source is None:
        names = [one.name for one in list(by_name.values())[:200]]
        findings.add(place, "unknown-operator", f"there is no operator {shown(item.source)}", _near(item.source, names))
        return item
    item = replace(item, source=source.name)
    if not source.interface.sound:
        return item
    outputs = source.interface.outputs
    if not outputs:
        findings.add(place, "unknown-output", f"operator {source.name} has no output", "give it one, or remove this")
        return item
    output = _output(item, source, place, findings)
    if output is None:
        return item
    if item.type is not None and output.type is not None and item.type != output.type:
        findings.add(_at(item, "type", place), "type-mismatch",
                     f"read as {item.type}, but written as {output.type}",
                     f"the same as in line {_at(output, 'type', place).line}")  # fmt: skip
    return replace(item, output=output.name)


def _output(item: Input, source: Draft, place: Place, findings: Findings) -> Output | None:
    outputs = source.interface.outputs
    names = [one.name for one in outputs[:200] if one.name]
    for one in outputs:
        if one.name.lower() == item.name.lower():
            return one
    if item.name:
        right = _near(item.name, names) if names else "leave `name` out: that output has none"
        at = _at(item, "name", place)
        findings.add(at, "unknown-output", f"operator {source.name} has no output {shown(item.name)}", right)
    elif item.type is None and "type" not in item.places:
        findings.add(place, "unknown-output", f"operator {source.name} names its outputs",
                     f"add `name: ...` here, one of {', '.join(names[:8])}")  # fmt: skip
    return None


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in known], n=1)
    if near:
        return f"did you mean {next(one for one in known if one.lower() == near[0])}?"
    return f"one of {', '.join(known[:8])}" + (", ..." if len(known) > 8 else "")


def _upstream(one: Draft, by_name: dict[str, Draft]) -> dict[str, Input]:
    """Return the names, in lower case, of the operators that one reads from, with the first input that does."""
    found: dict[str, Input] = {}
    for item in one.interface.inputs:
        if item.source is not None and item.source.lower() in by_name:
            found.setdefault(item.source.lower(), item)
    return found


def _order(drafts: Sequence[Draft], edges: Sequence[dict[str, Input]], findings: Findings) -> list[int]:
    """Return numbers of drafts, each behind those that it reads from; note every cycle once."""
    number: dict[str, int] = {}
    for index, one in enumerate(drafts):
        number.setdefault(one.name.lower(), index)
    waits = [{number[name] for name in upstream} for upstream in edges]
    readers: list[list[int]] = [[] for _ in drafts]
    for index, sources in enumerate(waits):
        for source in sources:
            readers[source].append(index)
    order: list[int] = []
    ready = [index for index, sources in enumerate(waits) if not sources]
    done = set(ready)
    while True:
        while ready:
            index = heapq.heappop(ready)
            order.append(index)
            for reader in readers[index]:
                waits[reader].discard(index)
                if not waits[reader] and reader not in done:
                    done.add(reader)
                    heapq.heappush(ready, reader)
        rest = [index for index in range(len(drafts)) if index not in done]
        if not rest:
            return order
        cycle = _cycle(rest[0], waits)
        first = min(cycle)
        turn = cycle[cycle.index(first) :] + cycle[: cycle.index(first)]
        names = " -> ".join(drafts[index].name for index in reversed([*turn, first]))
        item = edges[first][drafts[turn[1 % len(turn)]].name.lower()]
        findings.add(_at(item, "from", drafts[first].place), "cycle", f"operators wait for each other: {names}",
                     "remove one of these inputs")  # fmt: skip
        for index in cycle:  # so that other cycles are found too
            waits[index] -= set(cycle)
        ready = [index for index in cycle if not waits[index]]
        heapq.heapify(ready)
        done.update(ready)


def _cycle(start: int, waits: Sequence[set[int]]) -> list[int]:
    """Return operators of which each waits for the next, and the last for the first."""
    seen: dict[int, int] = {}
    walk: list[int] = []
    here = start
    while here not in seen:
        seen[here] = len(walk)
        walk.append(here)
        here = min(waits[here])
    return walk[seen[here] :]
