"""Folders whose files are links: loaded where the links are the user's, and no message tells what a link leads to."""

import json
import shutil
import traceback

import pytest
import torch

from tests.tiny_models import VARIANTS, save
from transformer_lens import HookedTransformer
from transformer_lens.loading import LoadReport

TOKENS = torch.arange(13)[None] * 7 % 113


@pytest.mark.parametrize("sharded", [False, True], ids=["one-file", "shards"])
@torch.no_grad()
def test_a_folder_of_links_loads_as_the_files_do(tmp_path, sharded):
    store, folder = tmp_path / "store", tmp_path / "folder"
    folder.mkdir()
    if sharded:
        from tests.tiny_models import make_model

        make_model(VARIANTS["llama-gqa"]).save_pretrained(store, max_shard_size="60KB")
    else:
        save(VARIANTS["llama-gqa"], store)
    for number, file in enumerate(sorted(store.iterdir())):
        blob = tmp_path / f"blob{number}"
        shutil.copyfile(file, blob)
        (folder / file.name).symlink_to(blob)
    plain, linked = (HookedTransformer.from_pretrained(path, device="cpu") for path in (store, folder))
    assert torch.equal(plain(TOKENS), linked(TOKENS))
    report = linked.load_report
    assert not plain.load_report.links and set(report.links.values()) <= {str(path) for path in tmp_path.glob("blob*")}
    assert {"config.json", "model.safetensors.index.json" if sharded else "model.safetensors"} <= set(report.links)
    assert f"link: config.json is {report.links['config.json']}" in str(report)
    assert LoadReport.from_json(report.to_json()) == report


SECRET = "hunter2"
SECRETS = {
    "text": f"root:x:0:0:{SECRET}:/root:/bin/sh\n{SECRET}\n".encode(),
    "key": b"-----BEGIN " + SECRET.encode() + b" KEY-----\n" + SECRET.encode() * 40,
    "json": json.dumps({"auths": {"host": {"auth": SECRET}}, SECRET: [SECRET]}).encode(),
    "json-string": json.dumps(SECRET).encode(),
    "json-list": json.dumps([SECRET, {"content": SECRET}]).encode(),
    "json-of-strings": json.dumps({"version": SECRET, "model": SECRET, "added_tokens": SECRET}).encode(),
    "starting-with-it": (SECRET + "\0" * 3).encode() * 30,
}
FILES = [
    "config.json", "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json",
    "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "adapter_config.json", "tokenizer.model", "chat_template.jinja",
]  # fmt: skip


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("name", FILES)
def test_a_planted_link_makes_no_message_that_tells_what_it_leads_to(tmp_path, name, kind, capfd, recwarn):
    secret = tmp_path / "secret"
    secret.write_bytes(SECRETS[kind])
    folder = save(VARIANTS["gpt2"], tmp_path / "folder")
    for file in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / file).write_text("{}")
    for gone in {"pytorch_model.bin": ["model.safetensors"], "adapter_config.json": ["config.json"]}.get(name, []):
        (folder / gone).unlink()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    told = ""
    try:
        HookedTransformer.from_pretrained(folder, device="cpu")
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        # The lines of our own source that a traceback quotes are no message.
        assert type(error).__module__.startswith("transformer_lens"), told
    out, err = capfd.readouterr()
    told += out + err + "".join(str(warning.message) for warning in recwarn)
    number = str(int.from_bytes(SECRETS[kind][:8], "little"))
    assert SECRET not in told and number not in told, told
