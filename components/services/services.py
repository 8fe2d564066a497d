"""What all sessions of one page share: made once by `build` and passed to its panels."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from surgery import SurgeryError

from . import zerogpu
from .bases import Bases
from .client_address import visitor
from .deployment import Deployment
from .downloads import Downloads
from .fair_queue import FairQueue
from .public_storage import Storage
from .quality import Quality
from .rates import Rates
from .runs import Runs
from .session_cleanup import SessionCleanup
from .skills import Skills
from .zerogpu import ZeroGpu

_ROOM = 128  # pages that may wait for a base: every page opens one, and Gradio's queue takes 128


@dataclass(frozen=True)
class Services:
    """The services of one page. `gpu` is there on ZeroGPU only."""

    deployment: Deployment
    bases: Bases
    rates: Rates
    queue: FairQueue  # for text generation
    quality: Quality
    opening: FairQueue  # of bases
    measuring: FairQueue
    repairs: FairQueue  # each repair uses all processors
    healing: FairQueue
    saving: FairQueue
    pushing: FairQueue  # waits for the network more than for this machine
    skills: Skills
    downloads: Downloads
    runs: Runs
    cleanup: SessionCleanup
    gpu: ZeroGpu | None = None

    @classmethod
    def of(
        cls,
        deployment: Deployment | None = None,
        storage: Storage | None = None,
        *,
        bases: Bases | None = None,
        rates: Rates | None = None,
        cleanup: SessionCleanup | None = None,
        gpu: ZeroGpu | None = None,
    ) -> Services:
        """Make the services for a deployment: the owner's own machine unless given."""
        deployment = deployment or Deployment()
        bases = bases or Bases(deployment, storage)
        queue, quality = Quality.of(deployment)

        def turns(at_once: int) -> FairQueue:
            return FairQueue(at_once, people=deployment.people)

        return cls(
            deployment=deployment,
            bases=bases,
            rates=rates or Rates(),
            queue=queue,
            quality=quality,
            opening=FairQueue(8, most=_ROOM, people=_ROOM),
            measuring=turns(4),
            repairs=turns(1),
            healing=turns(1),
            saving=turns(2),
            pushing=turns(1),
            skills=Skills(turns(1)),
            downloads=Downloads(deployment.max_disk_bytes),
            runs=Runs(),
            cleanup=cleanup or SessionCleanup(),
            gpu=gpu or (ZeroGpu(bases) if zerogpu.ON else None),
        )

    def admit(self, what: str, request: gr.Request | None) -> None:
        """Count a request for `what`, a key of `rates.PER_MINUTE`, on a public page. Raises
        `SurgeryError` if the sender has made too many."""
        if self.deployment.public:
            who = visitor(request)
            self.rates.take(what, who.session, who.address, self.deployment.people)

    def refused(self, what: str, request: gr.Request | None) -> bool:
        """Like `admit`, but show the reason as a warning and return whether it was refused."""
        try:
            self.admit(what, request)
        except SurgeryError as error:
            gr.Warning(str(error))
            return True
        return False
