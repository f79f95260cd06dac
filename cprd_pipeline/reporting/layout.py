"""Where the boxes of a small graph go: in layers from left to right, every arrow to a later layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

Parents = Sequence[frozenset[int]]
"""For each box the boxes that it needs, all of them earlier in the sequence."""


@dataclass(frozen=True)
class Place:
    """Of a box, or of a bend of an arrow that passes a layer.

    Args:
        layer: Column, from 0.
        slot: Row, from 0; columns are centred, so halves occur.
    """

    layer: int
    slot: float


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    Args:
        boxes: Place of each box.
        arrows: Each arrow as the places it touches, its first and last being boxes.
        layers: Number of columns.
        slots: Number of rows.
    """

    boxes: list[Place]
    arrows: list[list[Place]]
    layers: int
    slots: int


def without_detours(parents: Parents) -> list[frozenset[int]]:
    """Drop every arrow that a longer way already tells."""

    @cache
    def above(box: int) -> frozenset[int]:
        return frozenset().union(*(above(parent) | {parent} for parent in parents[box]))

    return [frozenset(p for p in mine if not any(p in above(other) for other in mine)) for mine in parents]


def lay_out(parents: Parents) -> Layout:
    """Longest way first; within a layer boxes stand near the middle of what they need."""
    layer_of: list[int] = []
    for mine in parents:
        layer_of.append(1 + max((layer_of[parent] for parent in mine), default=-1))
    nodes, ways = _with_bends(parents, layer_of)
    layers = max(layer_of, default=-1) + 1
    rows: dict[tuple[int, int], int] = {}
    for layer in range(layers):
        here = sorted((node for node in nodes if node[1] == layer), key=lambda node: (_middle(nodes[node], rows), node))
        rows |= {node: row for row, node in enumerate(here)}
    sizes = [sum(node[1] == layer for node in nodes) for layer in range(layers)]
    slots = max(sizes, default=0)
    places = {node: Place(node[1], row + (slots - sizes[node[1]]) / 2) for node, row in rows.items()}
    boxes = [places[box, layer] for box, layer in enumerate(layer_of)]
    return Layout(boxes, [[places[node] for node in way] for way in ways], layers, slots)


Node = tuple[int, int]
"""A box and a layer: its own, or a later one that its arrows pass."""


def _with_bends(parents: Parents, layer_of: Sequence[int]) -> tuple[dict[Node, list[Node]], list[list[Node]]]:
    """Nodes with what is before them, and each arrow as its nodes."""
    nodes: dict[Node, list[Node]] = {(box, layer): [] for box, layer in enumerate(layer_of)}
    ways = []
    for box, mine in enumerate(parents):
        for parent in sorted(mine):
            way = [(parent, layer) for layer in range(layer_of[parent], layer_of[box])]
            for before, bend in pairwise(way):
                nodes.setdefault(bend, [before])
            nodes[box, layer_of[box]].append(way[-1])
            ways.append([*way, (box, layer_of[box])])
    return nodes, ways


def _middle(before: Sequence[Node], rows: dict[Node, int]) -> float:
    return sum(rows[node] for node in before) / len(before) if before else 0.0
