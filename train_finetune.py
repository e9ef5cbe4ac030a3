"""Probe or fine-tune a pretrained encoder, or train the same network from scratch.

python train_finetune.py checkpoint=RUN                          linear probe on the digits
python train_finetune.py checkpoint=RUN protocol=finetune labels_per_class=5
"""

from mae.assembly import script
from mae.finetune import prepare

main = script("finetune", prepare)

if __name__ == "__main__":
    main()
