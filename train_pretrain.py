"""Pretrain a Vision Transformer as a masked autoencoder.

python train_pretrain.py                                 the digits that scikit-learn ships
python train_pretrain.py data=folder data.root=DIR       a folder of images, no labels needed
"""

from mae.cli.script import script

main = script("pretrain")

if __name__ == "__main__":
    main()
