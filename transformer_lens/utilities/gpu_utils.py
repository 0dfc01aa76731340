"""What a GPU has left."""

import torch


def print_gpu_mem(step_name: str = "") -> None:
    """Prints the GiB that torch has reserved on the current GPU; 0 where there is none."""
    reserved = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    print(f"{step_name} ~ {reserved / 2**30:.2f} GiB reserved on the GPU.")
