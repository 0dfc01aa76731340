"""The command ``transformer-lens``: loading from a terminal. One file a command; the only importer of typer."""
