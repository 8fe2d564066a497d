"""Skill probes: what a cut did to single skills, from generated items that need no download.

    from surgery.skills import compare_skills, profile

    before, after = profile(base), profile(base, plan)
    for change in compare_skills(before, after):
        print(change.skill.label, change.base.accuracy, change.patient.accuracy, change.verdict)

An item is a prompt with one right and several wrong continuations. It is graded by their
probabilities, so nothing is sampled and no answer has to be parsed.

    item         a prompt and its continuations
    words        words and names that items are made of
    sequences    copying and key lookup
    structure    brackets and JSON
    sums         sums of numbers with one and two digits
    agreement    a verb that agrees with its subject
    dates        days, months and years
    registry     the registry of skills, and their items
    grading      margins of items under a model
    intervals    Wilson's interval of a share, and the paired bootstrap
    cache        margins that were measured before
    profiles     all skills of one model
    changes      a patient's profile compared with its base's
    repetition   how much of greedy text repeats itself
    stages       base and patient with few items first, then with more
    report       their results for JSON
"""

from surgery.lazy import lazy_names

# Imported when first used: the registry needs no torch.
_HOMES = {
    "Change": "intervals",
    "Item": "item",
    "MarginCache": "cache",
    "Profile": "profiles",
    "Repetition": "repetition",
    "SKILLS": "registry",
    "Skill": "registry",
    "SkillChange": "changes",
    "SkillResults": "stages",
    "SkillScore": "profiles",
    "VERDICTS": "changes",
    "compare_skills": "changes",
    "counted": "changes",
    "items_of": "registry",
    "known_results": "stages",
    "margins": "grading",
    "measured_repetition": "repetition",
    "probe_in_stages": "stages",
    "profile": "profiles",
    "repetition_of": "repetition",
    "skills_json": "report",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)
