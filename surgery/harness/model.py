"""lm-eval's model class for a patient that is in memory."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from surgery.compute.choice import Choice, set_compute_dtype
from surgery.compute.contexts import many_rows
from surgery.errors import SurgeryError
from surgery.optional import require

from .opening import open_patient

require("lm_eval", "Evaluation")  # a clear error, before the import below

from lm_eval.models.huggingface import HFLM  # noqa: E402

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoadedLM(HFLM):
    """lm-eval's `HFLM` of a loaded model. Token probabilities are computed in the process's compute
    dtype, see `surgery.set_compute_dtype`; generated text as the weights are stored.

    `options` are HFLM's, such as `batch_size`, `max_length` and `add_bos_token`. Those that load a
    model, such as `device` and `dtype`, have no effect.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any
    ) -> None:
        # HFLM may give the tokenizer a pad token, which all who use the base would get.
        super().__init__(pretrained=model, tokenizer=copy.deepcopy(tokenizer), **options)

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        with many_rows(self.model):
            return super()._model_call(inps, *args, **kwargs)


class PatientLM(LoadedLM):
    """The model `layer-surgery`: a base that was operated on, without being saved.

    Arguments are those of `open_patient`, `compute_dtype` (“stored”, “float32” or “auto”) and
    HFLM's options. With “stored” the numbers are those of the saved checkpoint under `--model hf`,
    and with “float32” those with `dtype=float32` added. Raises `SurgeryError`.
    """

    def __init__(
        self,
        base: str = "",
        plan: str | int = "",
        repair: str | None = None,
        compute_dtype: Choice = "stored",
        **options: Any,
    ) -> None:
        if not base or plan == "":
            raise SurgeryError("Give the model arguments base=… and plan=….")
        patient = open_patient(base, plan, repair)  # a repair chooses its own dtype
        set_compute_dtype(compute_dtype)
        super().__init__(patient.model, patient.base.tokenizer, **options)
