"""Pretrain a Vision Transformer as a masked autoencoder.

python train_pretrain.py                                 the digits that scikit-learn ships
python train_pretrain.py data=folder data.root=DIR       a folder of images, no labels needed
"""

from mae.training.threads import calm_idle_threads

calm_idle_threads()  # before torch is loaded

from mae.cli.script import script  # noqa: E402
from mae.run.pretraining import prepare  # noqa: E402

main = script("pretrain", prepare)

if __name__ == "__main__":
    main()
