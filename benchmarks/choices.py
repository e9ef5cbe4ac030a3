"""Pretraining's choices one at a time, at equal minutes or epochs: what does a probe make of the features?

    python benchmarks/choices.py FOLDER... --minutes M        each with train/ and, where they exist, val/ and test/ of classes

Each choice changes one thing of the default run, as train_pretrain.py minutes=M has it, or epochs=E with --epochs E. Its
features are scored by a logistic regression on up to 2,000 labels, whose strength validation chooses, on up to 2,000 test
images, or on those of validation where the folder has no others; beside it the same encoder at random weights. --only NAME,NAME
runs those alone, --list shows all; --also "model.width=128 batch_size=64" adds a run of several changes, whatever --only names;
the rest follows as it does for a user.

Written to --out after every run, as choices.md and choices.json; the same command goes on with what is missing.
"""

from __future__ import annotations

import argparse

from mae.run.exits import one_line_errors
from mae.training.threads import calm_idle_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each pretraining")
    parser.add_argument("--epochs", type=int, help="of each pretraining, in place of minutes")
    parser.add_argument("--out", default="runs/choices", help="where figures and runs are kept")
    parser.add_argument("--only", default="", help="names of choices, beside the default")
    parser.add_argument("--also", action="append", default=[], metavar="OVERRIDES", help="of one more run, by blanks")
    parser.add_argument("--seeds", default="0", help="of the pretraining")
    parser.add_argument("--list", action="store_true", help="show the choices")
    options = parser.parse_args()
    calm_idle_threads()  # before torch is loaded
    with one_line_errors():
        from choices_study import Study, show_choices

        if options.list:
            show_choices()
            return
        Study(options).run()


if __name__ == "__main__":
    main()
