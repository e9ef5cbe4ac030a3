"""Is pretraining worth it on your images? Nothing is tuned: what the defaults give, with few labels and with more.

    python benchmarks/worth.py FOLDER...        each with train/ and, where they exist, val/ and test/ of classes

Pretrains for --minutes on each folder, without its labels. Then, at each number of labels: the default fine-tuning at its default
length and at a quarter of it, the same network from scratch, and on frozen features a logistic regression, whose strength
validation chooses, and whitened nearest neighbours, beside random weights and raw pixels. All are scored on the test images, or on
those of validation where the folder has no others, and compared image by image.

Written to --out after every step, as worth.md and worth.json; the same command goes on with what is missing.
"""

from __future__ import annotations

import argparse

from mae.run.exits import one_line_errors
from mae.training.threads import calm_idle_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=8.0, help="of pretraining, on each folder")
    parser.add_argument("--out", default="runs/worth", help="where figures and runs are kept")
    parser.add_argument("--labels", default="5,1%,10%", help="a class, or of all")
    parser.add_argument("--lengths", default="1,0.25", help="of the default number of epochs of fine-tuning")
    parser.add_argument("--seeds", default="0", help="of the draws of labels")
    parser.add_argument("--overrides", nargs="*", default=[], help="of the pretraining, to compare with the defaults")
    options = parser.parse_args()
    calm_idle_threads()  # before torch is loaded
    with one_line_errors():
        from worth_study import Worth

        Worth(options).run()


if __name__ == "__main__":
    main()
