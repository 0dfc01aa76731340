"""The hub: a cache made by hand while offline, and a stand-in on loopback that speaks its protocol, as far as we ask.

huggingface_hub reads its settings when it is imported, so what goes over the network runs in one child process.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from transformer_lens.loading.errors import CorruptCheckpointError, UnknownModelError
from transformer_lens.loading.sources import resolve

ROOT = Path(__file__).parents[3]
COMMIT, OTHER = "a" * 40, "b" * 40

# -- offline -----------------------------------------------------------------------------------------------------------


def cached(cache: Path, repo: str, files: dict[str, str], commit: str = COMMIT, branch: str = "main") -> None:
    """Lays a repository out as the hub's cache does."""
    home = cache / ("models--" + repo.replace("/", "--"))
    for name, text in files.items():
        blob = home / "blobs" / hashlib.sha256(text.encode()).hexdigest()
        path = home / "snapshots" / commit / name
        for file in (blob, path, home / "refs" / branch):
            file.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(text)
        path.symlink_to(os.path.relpath(blob, path.parent))
        (home / "refs" / branch).write_text(commit)


@pytest.fixture
def cache(tmp_path):
    cached(tmp_path, "some/model", {"config.json": "main", "model.safetensors": "w", "sub/config.json": "inside"})
    cached(tmp_path, "some/model", {"config.json": "older"}, OTHER, "v1")
    return str(tmp_path)


@pytest.mark.parametrize("local_files_only", [False, True])
def test_a_cached_file_is_found_offline(cache, local_files_only):
    """Offline by the environment (as all tests are), and by the argument."""

    def source(**where):
        return resolve("some/model", cache_dir=cache, local_files_only=local_files_only, **where)

    assert source().file("config.json").read_text() == "main"
    assert source(revision="v1").file("config.json").read_text() == "older"
    assert source(revision=OTHER).file("config.json").read_text() == "older"
    assert source(subfolder="sub").file("config.json").read_text() == "inside"


def test_a_file_that_a_cached_repository_lacks_is_not_there(cache):
    for subfolder in (None, "sub"):
        source = resolve("some/model", cache_dir=cache, subfolder=subfolder)
        assert source.find("model.safetensors.index.json") is None
        with pytest.raises(CorruptCheckpointError, match="some/model has no file 'vocab.json'"):
            source.file("vocab.json")


@pytest.mark.parametrize("where", [{"revision": "v2"}, {"subfolder": "none"}])
def test_what_is_not_cached_is_unknown_offline(cache, where):
    with pytest.raises(UnknownModelError, match="(?s)not in the hub's cache.*hf download some/model"):
        resolve("some/model", cache_dir=cache, **where).find("config.json")


# -- online ------------------------------------------------------------------------------------------------------------

FILES = {
    ("open/model", "main"): {"config.json": "{}", "sub/config.json": '{"sub": 1}'},
    ("open/model", "v1"): {"config.json": '{"v": 1}'},
    ("private/model", "main"): {"config.json": "{}"},
}


class Hub(BaseHTTPRequestHandler):
    """HEAD and GET of files; what is missing, gated, private or broken answers as the hub does."""

    asked: list[str] = []

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        repo, revision, name = "/".join(parts[:2]), "/".join(parts[3:4]), "/".join(parts[4:])
        if repo == "gated/model":
            return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        if repo == "broken/model":
            return self.answer(400)
        if repo == "private/model" and self.headers.get("Authorization") != "Bearer right":
            return self.answer(401, X_Error_Code="RepoNotFound")
        if not any(known == repo for known, _ in FILES):
            return self.answer(404, X_Error_Code="RepoNotFound")
        if (repo, revision) not in FILES:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        text = FILES[repo, revision].get(name)
        if text is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = hashlib.sha256(text.encode()).hexdigest()
        return self.answer(200, text.encode(), ETag=f'"{etag}"', X_Repo_Commit=COMMIT if revision == "main" else OTHER)

    do_HEAD = do_GET

    def log_message(self, *args) -> None:
        pass


CASES = {
    "file": ("open/model", {}, "config.json"),
    "subfolder": ("open/model", {"subfolder": "sub"}, "config.json"),
    "revision": ("open/model", {"revision": "v1"}, "config.json"),
    "no-file": ("open/model", {}, "vocab.json"),
    "no-revision": ("open/model", {"revision": "v7"}, "config.json"),
    "no-repository": ("open/mode", {}, "config.json"),
    "gated": ("gated/model", {}, "config.json"),
    "private": ("private/model", {}, "config.json"),
    "private-with-token": ("private/model", {"token": "right"}, "config.json"),
    "broken": ("broken/model", {}, "config.json"),
    "cached-only": ("open/model", {"local_files_only": True}, "config.json"),
}
CHILD = """
import json, sys, time
time.sleep = lambda seconds: None
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1 << 12  # what has arrived of a chunk is lost with the connection
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.sources import resolve
out = {}
for name, (repo, where, file) in json.load(sys.stdin).items():
    try:
        path = resolve(repo, **where).find(file)
        out[name] = ["path", None if path is None else path.read_text()]
    except LoadingError as error:
        out[name] = [type(error).__name__, str(error)]
print(json.dumps(out))
"""


def in_child(cases: dict, endpoint: str, home: Path, script: str = CHILD, **environment: str) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_ETAG_TIMEOUT": "5", "PYTHONWARNINGS": "ignore"}  # fmt: skip
    child = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(cases), capture_output=True, text=True, cwd=ROOT,
        env={**kept, **settings, **environment},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    home = tmp_path_factory.mktemp("hf-home")
    with serving(Hub) as endpoint:
        online = in_child(CASES, endpoint, home)
    del Hub.asked[:]
    cases = {name: CASES[name] for name in ("file", "subfolder", "revision")}
    return online, in_child(cases, endpoint, home)


EXPECTED = {
    "file": ("path", "{}"),
    "subfolder": ("path", '{"sub": 1}'),
    "revision": ("path", '{"v": 1}'),
    "no-file": ("path", None),
    "cached-only": ("path", "{}"),
    "private-with-token": ("path", "{}"),
    "no-revision": ("UnknownModelError", "open/model has no revision 'v7'"),
    "no-repository": ("UnknownModelError", "neither a folder nor a model on the hub"),
    "private": ("UnknownModelError", "needs token="),
    "gated": ("UnknownModelError", "terms must be accepted at https://huggingface.co/gated/model"),
    "broken": ("UnknownModelError", "could not be asked"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hubs_answers(answers, name):
    kind, text = answers[0][name]
    expected, words = EXPECTED[name]
    assert kind == expected, text
    assert text == words if kind == "path" else words in text


def test_what_was_fetched_is_found_when_the_hub_is_gone(answers):
    gone = answers[1]
    assert [gone[name][1] for name in ("file", "subfolder", "revision")] == ["{}", '{"sub": 1}', '{"v": 1}']


class ListingHub(Hub):
    """Answers what the files of a repository are, too."""

    def do_GET(self) -> None:
        if not self.path.startswith("/api/models/open/model/tree/main"):
            return super().do_GET()
        names = [*FILES["open/model", "main"], "checkpoints/run_9.pth"]
        body = json.dumps([{"type": "file", "path": name, "size": 2, "oid": COMMIT} for name in names]).encode()
        return self.answer(200, body, Content_Type="application/json")

    do_HEAD = do_GET


LISTED = """
import json, sys
from transformer_lens.loading.errors import LoadingError
from transformer_lens.loading.sources import resolve
out = {}
for name, (repo, where, file) in json.load(sys.stdin).items():
    try:
        out[name] = list(resolve(repo, **where).names())
    except LoadingError as error:
        out[name] = str(error)
print(json.dumps(out))
"""


def test_the_names_of_a_repositorys_files(tmp_path):
    cases = {
        "all": ("open/model", {}, ""),
        "sub": ("open/model", {"subfolder": "sub"}, ""),
        "no": ("open/mode", {}, ""),
    }
    with serving(ListingHub) as endpoint:
        found = in_child(cases, endpoint, tmp_path, LISTED)
        in_child({"file": CASES["file"]}, endpoint, tmp_path)
    assert found["all"] == ["checkpoints/run_9.pth", "config.json", "sub/config.json"]
    assert found["sub"] == ["config.json"] and "neither a folder nor a model on the hub" in found["no"]
    gone = in_child({"all": cases["all"]}, endpoint, tmp_path, LISTED, HF_HUB_OFFLINE="1")
    assert gone["all"] == ["config.json"]


# -- downloads that break off ------------------------------------------------------------------------------------------

SHARD = "".join(f"{i:07d}" for i in range(30_000))
HALF = len(SHARD) // 2


class CuttingHub(Hub):
    """Sends half of a shard and hangs up, as often as `cuts` says; answers ranges. Each GET's range is noted."""

    cuts = 0
    ranges: list[str | None] = []

    def do_GET(self) -> None:
        if not self.path.endswith("model.safetensors"):
            return super().do_GET()
        wanted = self.headers.get("Range")
        start = start_of(wanted)
        body = SHARD[start:].encode()
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(SHARD.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(SHARD) - 1}/{len(SHARD)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.ranges.append(wanted)
        if type(self).cuts:
            type(self).cuts -= 1
            self.wfile.write(body[: max(0, HALF - start)])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(body)

    do_HEAD = do_GET


SHARD_OF = {"shard": ("open/model", {}, "model.safetensors")}
SHARD_OFFLINE = {
    "config": ("open/model", {"local_files_only": True}, "config.json"),
    "shard": ("open/model", {"local_files_only": True}, "model.safetensors"),
}


def cut_off(home: Path, cuts: int) -> tuple[list, dict, list, list[str | None]]:
    """Fetches a shard over a line that is cut; looks into the cache offline; fetches again over one that holds."""
    CuttingHub.cuts = cuts
    del CuttingHub.ranges[:]
    with serving(CuttingHub) as endpoint:
        in_child({"config": ("open/model", {}, "config.json")}, endpoint, home)
        first = in_child(SHARD_OF, endpoint, home)["shard"]
        between = in_child(SHARD_OFFLINE, endpoint, home)
        CuttingHub.cuts = 0
        again = in_child(SHARD_OF, endpoint, home)["shard"]
    return first, between, again, list(CuttingHub.ranges)


def test_a_download_that_is_cut_once_is_resumed_where_it_stopped(tmp_path):
    """By huggingface_hub itself in the same call (2.x), or in the next one (0.x): then the error between is ours."""
    first, between, again, ranges = cut_off(tmp_path, 1)
    assert again == ["path", SHARD]
    assert len(ranges) == 2 and 0 < start_of(ranges[1]) <= HALF, ranges
    assert between["config"] == ["path", "{}"]
    if first[0] != "path":
        assert_says_what_to_do(first)
        assert between["shard"] == ["path", None]


def test_half_a_file_is_never_loaded(tmp_path):
    first, between, again, ranges = cut_off(tmp_path, 99)
    assert_says_what_to_do(first)
    assert between["shard"] == ["path", None]
    assert again == ["path", SHARD] and start_of(ranges[-1]) <= HALF


def start_of(wanted: str | None) -> int:
    return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0


def assert_says_what_to_do(answer: list) -> None:
    kind, text = answer
    assert kind == "LoadingError", text
    assert "A download of open/model broke off" in text and "Nothing of that file is loaded" in text
    assert "hf download open/model" in text


def test_a_silent_hub_is_asked_once(cache, monkeypatch):
    """An attempt takes half a minute to give up, and a load looks for a dozen files that may be absent."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def silent(repo, name, *, local_files_only, **where):
        asked.append((name, local_files_only))
        raise LocalEntryNotFoundError("connection refused")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", silent)
    source = resolve("some/model", cache_dir=cache)
    for name in ("a.json", "b.json", "c.json"):
        assert source.find(name) is None
    assert asked == [("a.json", False), ("b.json", True), ("c.json", True)]


# -- the functions of utils that fetch ---------------------------------------------------------------------------------

FETCHED = """
import json, sys
import torch
from transformer_lens import utils
from transformer_lens.loading.errors import LoadingError

out = {}
for name, (repo, file, how) in json.load(sys.stdin).items():
    try:
        found = utils.download_file_from_hf(repo, file, **how)
        if isinstance(found, str):
            found = ["path", open(found, "rb").read().hex()]
        elif any(isinstance(value, torch.Tensor) for value in found.values()):
            found = {key: [str(value.dtype), value.tolist()] for key, value in found.items()}
        out[name] = found
    except LoadingError as error:
        out[name] = [type(error).__name__, str(error)]
print(json.dumps(out))
"""


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Runs:
    """Would print when it is read as torch.load of old releases reads it."""

    def __reduce__(self):
        return print, ("ran",)


class FileHub(Hub):
    """The same protocol for files of bytes."""

    files: dict[str, bytes] = {}

    def do_GET(self) -> None:
        body = self.files.get(self.path.partition("?")[0].partition("/main/")[2])
        if body is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = hashlib.sha256(body).hexdigest()
        return self.answer(200, body, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


def test_one_file_is_fetched_and_read_by_its_ending(tmp_path):
    FileHub.files = {
        "config.json": b'{"a": 1}',
        "sub/model.pth": saved({"w": torch.tensor([1.0, 2.0])}),
        "model.bin": saved({"w": torch.tensor([3, 4])}),
        "evil.pth": saved({"w": Runs()}),
        "notes.txt": b"text",
    }
    asked = {
        "json": ("open/model", "config.json", {}),
        "tensors": ("open/model", "model.pth", {"subfolder": "sub", "revision": "main"}),
        "by-force": ("open/model", "model.bin", {"force_is_torch": True}),
        "elsewhere": ("open/model", "notes.txt", {"cache_dir": str(tmp_path / "there")}),
        "here": ("open/model", "config.json", {"subfolder": ".", "local_files_only": True}),
        "none": ("open/model", "none.json", {}),
        "code": ("open/model", "evil.pth", {}),
    }
    with serving(FileHub) as endpoint:
        found = in_child(asked, endpoint, tmp_path, FETCHED)
    assert found["json"] == found["here"] == {"a": 1}
    assert found["tensors"] == {"w": ["torch.float32", [1.0, 2.0]]}
    assert found["by-force"] == {"w": ["torch.int64", [3, 4]]}
    assert found["elsewhere"] == ["path", b"text".hex()] and any((tmp_path / "there").rglob("notes.txt"))
    assert found["none"][0] == "LoadingError" and "open/model has no file 'none.json'" in found["none"][1]
    assert found["code"][0] == "CorruptCheckpointError"


def test_without_a_network_one_try_says_how_to_go_without(tmp_path):
    """Nothing listens on the port: huggingface_hub itself would try five times, and wait in between."""
    slept = CHILD.replace("time.sleep = lambda seconds: None", "time.sleep = lambda seconds: sys.exit('tries again')")
    found = in_child({"file": ("open/model", {}, "config.json")}, "http://127.0.0.1:9", tmp_path, slept)
    kind, text = found["file"]
    assert kind == "UnknownModelError" and "HF_HUB_OFFLINE=1" in text and "Connect" in text
