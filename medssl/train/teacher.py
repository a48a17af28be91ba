"""Self-training: what nobody is sure of is told by a first model, and learnt by a second from the same start.

CheXpert's U-SelfTrained (Irvin et al., arXiv 1901.07031, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl

from medssl.tasks import LabelledModel
from medssl.train.loop import Fitted
from medssl.train.run import TEACHER

Tell = Callable[..., None] | None


def fit_with_teacher(
    model: LabelledModel, pupils: pl.DataFrame, fit: Callable[[LabelledModel, Path | None, Tell], Fitted],
    outputs: Callable[[LabelledModel, pl.DataFrame], np.ndarray], folder: Path | None, progress: Tell,
) -> Fitted:
    """Trains a copy of `model`, then the model itself on what the copy says of `pupils`.

    Args:
        fit: trains a model in place, with checkpoints in a folder where there is one.
        outputs: what a model says of cases, (cases, L).
    """
    trained, teacher = deepcopy(model), deepcopy(model)
    taught = fit(trained, folder and folder / TEACHER, _half(progress, 0))
    teacher.load_state_dict(trained.state_dict())  # one that was sharded in training can do nothing more
    model.task.be_taught(dict(zip(pupils["case_id"], outputs(teacher, pupils), strict=True)))
    del trained, teacher
    learnt = fit(model, folder, _half(progress, 1))
    return Fitted(learnt.loss, taught.seconds + learnt.seconds)


def _half(progress: Tell, number: int) -> Tell:
    """Shows a training as the first or the second half of all."""
    return progress and (lambda done, total, **told: progress(done + number * total, 2 * total, **told))
