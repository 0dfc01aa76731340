"""Makes the environments of the libraries that we are measured against; their pins are in environments.toml."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PINS = Path(__file__).with_name("environments.toml")
PROJECT = "project"


@dataclass(frozen=True)
class Environment:
    """A Python with the pinned versions of one library.

    Attributes:
        name: Its section in environments.toml, and its folder.
        title: What a table calls the library.
        pins: What pip is given; nothing for the project's own environment.
    """

    name: str
    title: str
    pins: tuple[str, ...] = ()

    def python(self, envs: Path) -> Path:
        """Returns the interpreter, whether or not the environment is made."""
        return Path(sys.executable) if self.name == PROJECT else envs / self.name / "bin" / "python"

    def make(self, envs: Path) -> Path:
        """Installs the pins into a folder of `envs`, unless these very pins are there; returns the interpreter."""
        python, stamp = self.python(envs), envs / self.name / ".installed"
        wanted = "\n".join(self.pins) + "\n"
        if self.name == PROJECT or (stamp.exists() and stamp.read_text() == wanted):
            return python
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(envs / self.name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *self.pins], check=True)
        stamp.write_text(wanted)
        return python


def environments() -> dict[str, Environment]:
    """Returns every environment by name, the project's own first."""
    found = {PROJECT: Environment(PROJECT, "this project")}
    for name, section in tomllib.loads(PINS.read_text()).items():
        found[name] = Environment(name, section["title"], tuple(section["pins"]))
    return found


def default_folder() -> Path:
    """Returns where environments are kept unless `--envs` says otherwise."""
    return Path(platformdirs.user_cache_dir("transformer_lens-benchmarks", appauthor=False)) / "environments"
