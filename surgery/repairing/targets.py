"""Which of the base's hidden states each layer of a patient should return.

After a cut, the layer before the seam should return what the first layer after the seam received in
the base. From there on every layer should return what its source returns in the base. Within
copies of layers that have run before, the target stays where the first copy ended: the repeated
block refines that state instead of computing it again from an earlier one.
"""

from __future__ import annotations

from surgery.plan import Plan


def target_depths(plan: Plan) -> tuple[int, ...]:
    """For every position, how many of the base's layers lead to the hidden states that its layer
    should return: from 1 to the base's depth, never falling."""
    sources, reached, depths = plan.sources, 0, []
    for p, source in enumerate(sources):
        reached = max(reached, source + 1)
        following = [later for later in sources[p + 1 :] if later >= reached]
        depths.append(min(following, default=plan.depth))
    return tuple(depths)


def starts(plan: Plan, last: bool = False) -> tuple[int, ...]:
    """Positions from which hidden states are to be led back to the base's: before each place where
    layers are left out, and at the start of each repeated block (`last`: at its end)."""
    sources, reached, found = plan.sources, 0, []
    again = [source < max(sources[:p], default=-1) + 1 for p, source in enumerate(sources)]
    for p, source in enumerate(sources):
        reached = max(reached, source + 1)
        following = sources[p + 1] if p + 1 < len(plan) else plan.depth
        neighbour = p + 1 if last else p - 1
        edge = not (0 <= neighbour < len(plan) and again[neighbour])
        if following > reached or (again[p] and edge) or (p == 0 and source > 0):
            found.append(p)
    return tuple(found)
