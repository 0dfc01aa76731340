"""Modules that share a class's name: what a package has as an attribute stays what it was, whatever is imported."""

import json
import subprocess
import sys

import transformer_lens

# Imports every submodule after the package, in an order that is not its own, and lists what turned into a module.
CHILD = """
import importlib, json, pkgutil, sys
from types import ModuleType
import transformer_lens

names = sorted(one.name for one in pkgutil.walk_packages(transformer_lens.__path__, "transformer_lens."))
# One runs the command line, others say that they do not exist.
left_out = transformer_lens.utilities.left_out.LEFT_OUT
names = [name for name in names if name.partition(".")[2] not in ("__main__", *left_out)]
before = {}
turned = []
for name in names:
    for module in [one for key, one in sys.modules.items() if key.startswith("transformer_lens")]:
        for attribute, value in vars(module).items():
            if not isinstance(value, ModuleType):
                before.setdefault((module.__name__, attribute), value)
    importlib.import_module(name)
    for (owner, attribute), value in before.items():
        if isinstance(vars(sys.modules[owner]).get(attribute), ModuleType):
            turned.append(f"{owner}.{attribute} by import {name}")
print(json.dumps({"names": names, "turned": sorted(set(turned))}))
"""


def test_no_import_turns_a_class_or_a_function_into_a_module():
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD], capture_output=True, text=True, check=True)
    found = json.loads(child.stdout)
    assert "transformer_lens.HookedTransformerConfig" in found["names"] and len(found["names"]) > 150
    assert found["turned"] == []


def test_every_class_of_the_top_that_has_a_module_of_its_name_is_that_modules_class():
    modules = {name: module for name, module in sys.modules.items() if name.startswith("transformer_lens.")}
    shared = [name for name in transformer_lens.__all__ if f"transformer_lens.{name}" in modules]
    classes = [name for name in shared if name[0].isupper()]
    assert {"HookedTransformer", "HookedTransformerConfig", "ActivationCache", "FactoredMatrix"} <= set(classes)
    for name in classes:
        assert vars(modules[f"transformer_lens.{name}"])[name] is vars(transformer_lens)[name]
