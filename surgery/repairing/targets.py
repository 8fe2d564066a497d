"""Which of the base's hidden states each layer of a patient should return.

After a cut, the layer before the seam should return what the first layer behind the seam was given
in the base. From there on every layer should return what its source returns in the base. Within
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


def first_repaired(plan: Plan) -> int | None:
    """The first position whose layer doesn't return the base's hidden states already: that before
    the first seam, or the first of a repeated block. None if the plan changes nothing."""
    depths = target_depths(plan)
    for p, layer in enumerate(plan.layers):
        if layer.source != p or depths[p] != p + 1:
            return p
    return None
