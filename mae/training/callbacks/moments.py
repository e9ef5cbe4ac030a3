"""When something is done beside the training steps."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn


def due(trainer: L.Trainer, times: int) -> bool:
    """Whether this validation is one of ``times``, evenly spread over the training, the last among them."""
    if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
        return False
    assert trainer.max_epochs is not None and trainer.check_val_every_n_epoch is not None, "epochs are always set"
    validations = max(1, trainer.max_epochs // trainer.check_val_every_n_epoch)
    done = (trainer.current_epoch + 1) // trainer.check_val_every_n_epoch
    return done * times // validations > (done - 1) * times // validations
