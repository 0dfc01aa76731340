"""``python -m transformer_lens``: the same as the command ``transformer-lens``."""

from transformer_lens.cli.app import main

if __name__ == "__main__":
    main()
