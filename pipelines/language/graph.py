"""Joins inputs to the outputs that they read, and puts the operators in order."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from nuclei_segmentation.pipelines.language.findings import Findings, Place, shown
from nuclei_segmentation.pipelines.language.model import Input, Operator, Output
from nuclei_segmentation.pipelines.language.operators import Draft
from nuclei_segmentation.pipelines.language.suggestions import MAX_COMPARED, one_of, suggest


def join(drafts: Sequence[Draft], findings: Findings) -> tuple[Operator, ...]:
    """Return the operators in topological order, without those that could not be read.

    Source: pages *pipelines*, *operator*, *names*: names are unique whatever their case, and the graph has no cycle.

    Parameters
    ----------
    drafts : Sequence of Draft
        The operators in the order of the file.
    findings : Findings
        Collects what is wrong.
    """
    by_name: dict[str, Draft] = {}
    for draft in drafts:
        if not draft.name:
            continue
        first = by_name.setdefault(draft.name.lower(), draft)
        if first is not draft:
            place = _place(draft.operator, "name", draft.place)
            findings.add(place, "duplicate", f"operator {shown(draft.name)} appears twice (case does not matter)",
                         f"rename or remove it: {first.place.line_for(place.file)} has it already")  # fmt: skip
    all_named = not any(draft.pending for draft in drafts)
    joined = [_joined(draft, by_name, findings, all_named) for draft in drafts]
    upstream = [_upstream(draft, by_name) for draft in drafts]
    order = _order(drafts, upstream, findings)
    return tuple(operator for operator in (joined[number] for number in order) if operator is not None)


def _place(thing: Operator | Input | Output | None, key: str, default: Place) -> Place:
    return default if thing is None else thing.places.get(key, thing.places.get("", default))


def _joined(draft: Draft, by_name: dict[str, Draft], findings: Findings, all_named: bool) -> Operator | None:
    inputs = tuple(_with_source(item, draft, by_name, findings, all_named) for item in draft.interface.inputs)
    return None if draft.operator is None else replace(draft.operator, inputs=inputs)


def _with_source(item: Input, reader: Draft, by_name: dict[str, Draft], findings: Findings, all_named: bool) -> Input:
    """Return an input with its source found. Source: page *input*; types must be those of the output that is read.

    An operator that is not found does not exist only if `all_named`: no name waits for the value of a parameter.
    """
    if item.source is None or findings.full:
        return item
    place = _place(item, "from", reader.place)
    source = by_name.get(item.source.lower())
    if source is None and not all_named:
        return item
    if source is None:
        names = [draft.name for draft in list(by_name.values())[:MAX_COMPARED]]
        otherwise = f"use {one_of(names)}" if names else "give an operator this name"
        findings.add(place, "unknown-operator", f"there is no operator {shown(item.source)}",
                     suggest(item.source, names, otherwise))  # fmt: skip
        return item
    item = replace(item, source=source.name)
    if not source.interface.sound:
        return item
    if not source.interface.outputs:
        findings.add(place, "unknown-output", f"operator {source.name} has no output",
                     "add an output to it, or remove this input")  # fmt: skip
        return item
    output = _find_output(item, source, place, findings)
    if output is None:
        return item
    if item.type is not None and output.type is not None and item.type != output.type:
        type_place = _place(item, "type", place)
        written = _place(output, "type", place).line_for(type_place.file)
        findings.add(type_place, "type-mismatch", f"read as {item.type}, but written as {output.type}",
                     f"use the same type as in {written}")  # fmt: skip
    return replace(item, output=output.name)


def _find_output(item: Input, source: Draft, place: Place, findings: Findings) -> Output | None:
    outputs = source.interface.outputs
    names = [output.name for output in outputs[:MAX_COMPARED] if output.name]
    for output in outputs:
        if output.name.lower() == item.name.lower():
            return output
    if item.name:
        expected = "remove `name`: its output has no name"
        if names:
            expected = suggest(item.name, names, f"use {one_of(names)}")
        findings.add(_place(item, "name", place), "unknown-output",
                     f"operator {source.name} has no output {shown(item.name)}", expected)  # fmt: skip
    elif item.type is None and "type" not in item.places:
        findings.add(place, "unknown-output", f"the outputs of operator {source.name} have names",
                     f"add `name: ...` here: {one_of(names)}")  # fmt: skip
    return None


def _upstream(draft: Draft, by_name: dict[str, Draft]) -> dict[str, Input]:
    """Return the lower-case names of the operators that a draft reads from, each with the first input that does."""
    found: dict[str, Input] = {}
    for item in draft.interface.inputs:
        if item.source is not None and item.source.lower() in by_name:
            found.setdefault(item.source.lower(), item)
    return found


def _order(drafts: Sequence[Draft], upstream: Sequence[dict[str, Input]], findings: Findings) -> list[int]:
    """Return the drafts' numbers, each after those that it reads from. Every cycle is added to the findings once."""
    by_name: dict[str, int] = {}
    for number, draft in enumerate(drafts):
        by_name.setdefault(draft.name.lower(), number)
    pending = [{by_name[name] for name in sources} for sources in upstream]
    readers: list[list[int]] = [[] for _ in drafts]
    for number, sources in enumerate(pending):
        for source in sources:
            readers[source].append(number)
    order: list[int] = []
    ready = [number for number, sources in enumerate(pending) if not sources]
    reached = set(ready)
    while True:
        while ready:
            number = heapq.heappop(ready)
            order.append(number)
            for reader in readers[number]:
                pending[reader].discard(number)
                if not pending[reader] and reader not in reached:
                    reached.add(reader)
                    heapq.heappush(ready, reader)
        rest = [number for number in range(len(drafts)) if number not in reached]
        if not rest:
            return order
        cycle = _cycle(rest[0], pending)
        first = min(cycle)
        rotated = cycle[cycle.index(first) :] + cycle[: cycle.index(first)]
        names = " -> ".join(drafts[number].name for number in reversed([*rotated, first]))
        item = upstream[first][drafts[rotated[1 % len(rotated)]].name.lower()]
        findings.add(_place(item, "from", drafts[first].place), "cycle", f"operators wait for each other: {names}",
                     "remove one of these inputs")  # fmt: skip
        for number in cycle:  # taken apart, so that other cycles are found too
            pending[number] -= set(cycle)
        ready = [number for number in cycle if not pending[number]]
        heapq.heapify(ready)
        reached.update(ready)


def _cycle(start: int, pending: Sequence[set[int]]) -> list[int]:
    """Return the numbers of operators each of which reads from the next, and the last from the first."""
    seen: dict[int, int] = {}
    walk: list[int] = []
    number = start
    while number not in seen:
        seen[number] = len(walk)
        walk.append(number)
        number = min(pending[number])
    return walk[seen[number] :]
