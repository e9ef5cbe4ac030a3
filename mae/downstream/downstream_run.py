"""The run of a second stage that trains: fitted, scored once, and put beside its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mae.checkpoints.read import START, read_header, read_pickle
from mae.config.schema.protocols import Finetune
from mae.config.schema.roots import FinetuneConfig
from mae.downstream.baselines import BASELINE, earlier_baselines, random_config
from mae.downstream.between import SHARES, mixed, nearest
from mae.downstream.tasks.task import Scored, Task
from mae.models.cost import parameters
from mae.report.page import Figure
from mae.run.folder import RunFolder
from mae.run.run import Outcome, Run
from mae.run.setting import Setting
from mae.training.callbacks.checkpointing import StoppedError
from mae.training.callbacks.divergence import DivergedError
from mae.training.classifying import ClassificationModule
from mae.training.downstream import DownstreamModule


@dataclass
class DownstreamRun(Run):
    """A probe, a fine-tuning or a segmentation, ready to go.

    Attributes:
        task: What is predicted.
        averaging: The callback that averages the weights, where the protocol does.
        pretrained: Whether the encoder started from a checkpoint.
        prepare_again: Prepares the same run from another config, for the baseline from random weights.
    """

    setting: Setting[FinetuneConfig]
    module: DownstreamModule
    task: Task[Any]
    averaging: list[Callback]
    pretrained: bool
    prepare_again: Callable[[FinetuneConfig], DownstreamRun]

    def run(self) -> Mapping[str, Any]:
        """Train, choose the best epoch on validation, score the test split once, then the baselines; return the results.

        Raises:
            DivergedError: The loss became no number.
        """
        folder, config = self.setting.folder, self.setting.config
        best = folder.path / "checkpoints" / "best.ckpt"
        baselines = earlier_baselines(folder.earlier_results())
        self.train()
        (validated,) = self.trainer.validate(
            self.module, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False
        )
        scored = self.task.score(self.trainer, self.module, self.data, folder.path, best)
        results: dict[str, Any] = {
            "stage": "finetune",
            **self.task.named,
            **validated,
            **(scored.results if scored else {}),
            "epochs": config.epochs,
            **self.task.label_results(self.data.splits),
            "parameters": parameters(self.module.model),
            "trained_parameters": parameters(self.module.model, learning=True),
            **self.training_results,
            **baselines,
        }
        outcome = self.report(results, scored)
        try:  # an interrupt in what follows loses nothing
            missing = self._missing_baselines(baselines)
            if missing:
                outcome = self.report(results | self.measure_baselines(missing), scored)
        finally:
            if outcome is not None:
                self.tell(self.module.model.encoder, outcome)
        return outcome.results if outcome is not None else {}

    def train(self) -> None:
        """Train, and leave in ``module`` what is to be scored, with its weights in ``best.ckpt``.

        Raises:
            DivergedError: The loss became no number.
        """
        # What the first process begins with is what every device begins with: DDP sees to that.
        if self.setting.folder.last_checkpoint is None and self.trainer.is_global_zero:
            self.return_to_device()
            self.task.begin(self.setting, self.trainer, self.module, self.data)
        self.fit()
        self.divergence.check()
        # The checkpoint holds the averaged weights already: the callback would swap them for others.
        for callback in self.averaging:
            self.trainer.callbacks.remove(callback)  # type: ignore[attr-defined]
        self._compare_start()

    def _compare_start(self) -> None:
        """Let ``best.ckpt`` hold weights between the start, where it was kept, and the best epoch, as validation says."""
        checkpoints = self.setting.folder.path / "checkpoints"
        start, best = checkpoints / "start.ckpt", checkpoints / "best.ckpt"
        if not start.is_file():
            return
        if not (
            best.is_file() and START in read_header(best)
        ):  # it has not been compared by a run that was killed then
            first = read_pickle(start)
            last = read_pickle(best) if best.is_file() else first
            states = first["state_dict"], last["state_dict"]
            share = SHARES[nearest([self._right(mixed(*states, share)) for share in SHARES])]
            self.trainer.strategy.barrier()
            if self.trainer.is_global_zero:
                partial = start.with_suffix(".partial")
                torch.save(
                    {**(last if share else first), "state_dict": mixed(*states, share), START: 1 - share}, partial
                )
                partial.replace(best)
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            start.unlink()
        self.trainer.strategy.barrier()

    def _right(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return which validation images (N,) the classifier with these weights has right."""
        assert isinstance(self.module, ClassificationModule), "a start is kept where a head is solved for"
        self.module.load_state_dict(weights)
        split = self.data.evaluation_loader(self.data.splits.val, shard=True)
        self.trainer.test(self.module, split, verbose=False)
        logits, labels = self.module.scored
        return logits.argmax(dim=1) == labels

    @property
    def training_results(self) -> Mapping[str, Any]:
        """How much of what is scored is the solved head that the run began with, where it began with one: 1 is that alone."""
        protocol = self.setting.config.protocol
        if not (isinstance(protocol, Finetune) and protocol.head_start == "solved"):
            return {}
        header = read_header(self.setting.folder.path / "checkpoints" / "best.ckpt")
        return {
            START: header.get(START, float(header["global_step"] == 0))
        }  # an older run kept its start whole, or not

    @property
    def training_figures(self) -> Sequence[Figure]:
        """Figures on the training itself, beside the curves."""
        return ()

    def report(self, results: Mapping[str, Any], scored: Scored | None) -> Outcome | None:
        """Write the encoder, results.json and report.html with what is known so far; None on all processes but the first."""
        if scored is None:
            return None
        results = {**results, **self._differences(results)}
        outcome = Outcome(
            results,
            self.task.verdicts(results, scored),
            tables=[self.task.compare(results, scored, self.pretrained), *scored.tables],
            figures=[*scored.figures, *self.training_figures],
        )
        return self.write(self.module.model.encoder, outcome)

    def measure_baselines(self, missing: Sequence[str]) -> dict[str, Any]:
        """Return the figures of baselines: ``pixels``, without a network, and ``random``, from random weights.

        Raises:
            StoppedError: The run was stopped meanwhile; what it had scored before is kept.
        """
        task, found = self.task, dict[str, Any]()
        if "pixels" in missing:
            self.say(f"measuring a baseline: {task.without_network}", style="dim")
            self.return_to_device()
            folder = self.setting.folder.path if self.trainer.is_global_zero else None
            found |= task.measure_without_network(self.module, self.data, folder)
        if "random" in missing:
            self.say("measuring a baseline: random weights", style="dim")
            results, split = self._train_from_random(), self.data.scored[0]
            if results:  # the first process alone has them
                keys = [key for name in task.compared for key in (name, f"{name}_interval")]
                found |= {f"random_{key}": results[f"{split}_{key}"] for key in keys if f"{split}_{key}" in results}
        return found

    def _differences(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return by how much the run is above the baselines that were measured, and the word that follows on pretraining."""
        figure = self.task.compared[0]
        baselines = [name for name in ("random", "pixels") if f"{name}_{figure}" in results]
        found = self.task.differences(self.module, self.setting.folder.path, baselines)
        if not found:
            return {}
        word = {"verdict": found["random"].word} if "random" in found else {}
        return {"differences": {name: one.plain for name, one in found.items()}, **word}

    def _missing_baselines(self, known: Mapping[str, Any]) -> list[str]:
        """Return which baselines the config asks for and an earlier part of the run has not measured."""
        if not self.setting.config.baselines:
            return []
        has = {"pixels": self.task.without_network is not None, "random": self.pretrained}
        return [name for name, wanted in has.items() if wanted and f"{name}_{self.task.compared[0]}" not in known]

    def _train_from_random(self) -> Mapping[str, Any]:
        """Return the results of the same run from random weights, which an earlier part of this run may have finished."""
        config, folder = random_config(self.setting, self.module.model.encoder), self.setting.folder.path
        earlier = RunFolder(folder / BASELINE, config.resume).earlier_results()
        if earlier:
            return earlier
        try:
            return self.prepare_again(config).run()
        except DivergedError as diverged:
            self.say(f"the baseline from random weights has no figure: {diverged}", style="bold yellow")
            return {}
        except StoppedError:
            raise StoppedError(
                f"stopped in the baseline from random weights, and the result itself is kept: resume=true run_dir={folder} "
                f"measures the rest"
            ) from None
