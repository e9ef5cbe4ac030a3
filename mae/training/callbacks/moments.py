"""When something is done beside the training steps."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn


class LastValidation(L.Callback):
    """Has the last epoch validated too, where the number of epochs is no multiple of the epochs between validations.

    So what is best is chosen among all that was trained, whatever the number of epochs.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look whether a run goes on within its last epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate after every epoch from now on, where this one is the last."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


def due(trainer: L.Trainer, times: int) -> bool:
    """Whether this validation is one of ``times``, evenly spread over the training, the last among them."""
    if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
        return False
    assert trainer.max_epochs is not None and trainer.check_val_every_n_epoch is not None, "epochs are always set"
    if trainer.current_epoch + 1 == trainer.max_epochs:
        return times > 0
    validations = -(-trainer.max_epochs // trainer.check_val_every_n_epoch)
    done = (trainer.current_epoch + 1) // trainer.check_val_every_n_epoch
    return done * times // validations > (done - 1) * times // validations
