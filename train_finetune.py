"""Probe or fine-tune a pretrained encoder, train the same network from scratch, or measure frozen features.

python train_finetune.py checkpoint=RUN                                     linear probe on the digits
python train_finetune.py checkpoint=RUN protocol=finetune labels_per_class=5
python train_finetune.py -m checkpoint=RUN,null seed=0,1,2                  one table of all of them
"""

from mae.cli.app import write_tables
from mae.training.threads import calm_idle_threads

calm_idle_threads()  # before torch is loaded

from mae.cli.script import script  # noqa: E402
from mae.downstream.prepare import prepare  # noqa: E402

main = script("finetune", prepare, after_sweep=write_tables)

if __name__ == "__main__":
    main()
