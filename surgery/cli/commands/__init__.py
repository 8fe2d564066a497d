"""The commands, a file for each, in the order in which the help lists them."""

from .compare import compare
from .generate import generate
from .heal import heal
from .inspect import inspect
from .preview import preview
from .push import push
from .recipe import recipe
from .repair import repair
from .save import save
from .scan import scan
from .suggest import suggest
from .verify import verify
from .weights import weights

COMMANDS = (
    inspect,
    preview,
    generate,
    weights,
    scan,
    suggest,
    compare,
    repair,
    heal,
    save,
    recipe,
    verify,
    push,
)
