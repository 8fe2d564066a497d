"""Joins a component's ES modules into the one script that `gr.HTML` runs.

Gradio evaluates `js_on_load` as the body of a function, where `import` is a syntax error. So each
module becomes a function of its own that returns what it exports. Modules that a server would have
to deliver could arrive late, or not at all behind another address; these are simply there.
"""

from __future__ import annotations

import re
from pathlib import Path

_IMPORT = re.compile(r"^import \{([^}]+)\} from '(\.{1,2}/[^']+)';$", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def bundle(entry: Path) -> str:
    """A script that runs a module's `mount({element, trigger, props, watch})`.

    It takes `import { a, b } from './c.mjs';` and `export function`, `class` or `const`; raises
    `ValueError` for any other form, for a circle and for a name that a module does not export.
    """
    names: dict[Path, str] = {}
    exports: dict[Path, list[str]] = {}
    parts: list[str] = []

    def add(path: Path, importers: tuple[Path, ...]) -> None:
        if path in importers:
            raise ValueError(f"{path.name} imports itself, by way of others.")
        if path in names:
            return
        source = path.read_text(encoding="utf-8")
        for _, address in _IMPORT.findall(source):
            add((path.parent / address).resolve(), (*importers, path))

        def imported(match: re.Match) -> str:
            target = (path.parent / match[2]).resolve()
            wanted = [name.strip() for name in match[1].split(",") if name.strip()]
            for name in wanted:
                if name not in exports[target]:
                    raise ValueError(f"{path.name} imports {name}: {target.name} has no such name.")
            return f"const {{ {', '.join(wanted)} }} = {names[target]};"

        names[path] = f"module{len(names)}"
        exports[path] = _EXPORT.findall(source)
        body = _EXPORT.sub("", _IMPORT.sub(imported, source))
        if other := _OTHER.search(body):
            raise ValueError(f"{path.name}: “{other[0]}” is not a form that `bundle` takes.")
        returned = ", ".join(exports[path])
        head = f"// {path.name}\nconst {names[path]} = (() => {{"
        parts.append(f"{head}\n{body}\nreturn {{ {returned} }};\n}})();")

    entry = entry.resolve()
    add(entry, ())
    if "mount" not in exports[entry]:
        raise ValueError(f"{entry.name} exports no function called mount.")
    start = f"{names[entry]}.mount({{ element, trigger, props, watch }});"
    return "\n".join(["'use strict';", *parts, start])
