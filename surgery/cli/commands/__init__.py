"""The commands, a file for each, in the order in which the help lists them."""

from .check import check
from .compare import compare
from .evaluate import evaluate
from .generate import generate
from .heal import heal
from .inspect import inspect
from .preview import preview
from .push import push
from .recipe import recipe
from .repair import repair
from .save import save
from .scan import scan
from .skills import skills
from .suggest import suggest
from .tokens import tokens
from .verify import verify
from .weights import weights

COMMANDS = (
    inspect,
    preview,
    generate,
    weights,
    scan,
    tokens,
    suggest,
    compare,
    skills,
    evaluate,
    repair,
    heal,
    save,
    recipe,
    verify,
    check,
    push,
)
