"""A plain training loop, for small models and experiments."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from transformer_lens import utilities as utils
from transformer_lens.HookedTransformer import HookedTransformer
from transformer_lens.utilities.library_utils import is_library_available

__all__ = ["HookedTransformer", "HookedTransformerTrainConfig", "is_library_available", "train", "utils"]


@dataclass
class HookedTransformerTrainConfig:
    """How to train.

    Attributes:
        num_epochs: How often the dataset is gone through.
        batch_size: Rows a step.
        lr: Learning rate.
        seed: Seed of the order of the rows, and of all else that torch draws.
        momentum: For "SGD" only.
        max_grad_norm: Gradients with a larger norm are scaled down to it; None leaves them.
        weight_decay: None means none, for every optimizer.
        optimizer_name: "Adam", "AdamW" or "SGD"; with `weight_decay`, "Adam" is "AdamW" (decay apart from the moments).
        device: Where to train; None means CUDA if there is one, else the CPU.
        warmup_steps: Steps during which the learning rate rises linearly from 0 to `lr`.
        save_every: The weights are saved after each this many steps; None never saves.
        save_dir: The folder that they are saved in, ``model_<step>.pt``; it is made if it is not there.
        wandb: Log the loss to Weights & Biases, whose package must be installed.
        wandb_project_name: The project there; None takes its default.
        print_every: The loss is printed after each this many steps; None never prints.
        max_steps: Training ends after this many steps; None means that it does not end early.
    """

    num_epochs: int
    batch_size: int
    lr: float = 1e-3
    seed: int = 0
    momentum: float = 0.0
    max_grad_norm: float | None = None
    weight_decay: float | None = None
    optimizer_name: str = "Adam"
    device: str | torch.device | None = None
    warmup_steps: int = 0
    save_every: int | None = None
    save_dir: str | None = None
    wandb: bool = False
    wandb_project_name: str | None = None
    print_every: int | None = 50
    max_steps: int | None = None


def train(model: HookedTransformer, config: HookedTransformerTrainConfig, dataset: Dataset[Any]) -> HookedTransformer:
    """Trains a model to predict the next token, in place.

    Parameters are written to. Of a model that borrowed them from another (``load_mode="assign"`` with ``hf_model=``)
    the other model changes too: load it with ``load_mode="copy"`` for training.

    Args:
        model: The model.
        config: How to train.
        dataset: Rows are dicts with "tokens", ``[pos]``, all of one length.

    Returns:
        The model, on the device it was trained on.

    Raises:
        ValueError: The optimizer is unknown, or saving is asked for without a folder.
    """
    if config.save_every is not None and config.save_dir is None:
        raise ValueError("save_every needs save_dir, the folder to save in")
    torch.manual_seed(config.seed)
    device = utils.get_device() if config.device is None else config.device
    model.train()
    model.to(device)
    optimizer = _optimizer(model, config)
    warmup = config.warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / warmup) if warmup else 1.0)
    run = _wandb_run(config) if config.wandb else None
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=config.batch_size, shuffle=True)
    for step, batch in enumerate(_batches(loader, config), start=1):
        loss = model(batch["tokens"].to(device), return_type="loss")
        loss.backward()
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if run is not None:
            run.log({"train_loss": loss.item(), "step": step})
        if config.print_every is not None and step % config.print_every == 0:
            print(f"step {step}: loss {loss.item():.4f}")
        if config.save_every is not None and step % config.save_every == 0:
            assert config.save_dir is not None
            os.makedirs(config.save_dir, exist_ok=True)
            torch.save(model.state_dict(), os.path.join(config.save_dir, f"model_{step}.pt"))
    return model


def _batches(loader: DataLoader[Any], config: HookedTransformerTrainConfig) -> Iterator[Any]:
    steps = 0
    for epoch in range(1, config.num_epochs + 1):
        for batch in tqdm(loader, desc=f"epoch {epoch}"):
            if config.max_steps is not None and steps >= config.max_steps:
                return
            steps += 1
            yield batch


def _optimizer(model: HookedTransformer, config: HookedTransformerTrainConfig) -> torch.optim.Optimizer:
    decay = 0.0 if config.weight_decay is None else config.weight_decay
    if config.optimizer_name == "Adam" and config.weight_decay is None:
        return torch.optim.Adam(model.parameters(), lr=config.lr)
    if config.optimizer_name in ("Adam", "AdamW"):
        return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=decay)
    if config.optimizer_name == "SGD":
        return torch.optim.SGD(model.parameters(), lr=config.lr, weight_decay=decay, momentum=config.momentum)
    raise ValueError(f"optimizer_name is {config.optimizer_name!r}; it can be 'Adam', 'AdamW' or 'SGD'")


def _wandb_run(config: HookedTransformerTrainConfig) -> Any:
    if not is_library_available("wandb"):
        raise ImportError("wandb=True needs the package wandb: pip install wandb")
    import wandb

    return wandb.init(project=config.wandb_project_name, config=vars(config))
