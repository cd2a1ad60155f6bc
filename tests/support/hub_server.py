"""A Hugging Face Hub on this machine: the endpoints that huggingface_hub calls to look up, fetch and
push a repository, as its source (2.4.0: file_download.py, hf_api.py, _commit_api.py, lfs.py) calls
them. Large files are redirected to another host name ("localhost" for "127.0.0.1"), as the real one
redirects to its CDN, which must not see a token.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

TOKEN = "hf_writes"
_LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-3.0", "openrail", "other", "unknown"}
_TASKS = {"audio-to-audio", "text-to-speech", "automatic-speech-recognition", "any-to-any"}
_REPO = r"[\w.-]+/[\w.-]+"


class Repository:
    """`commits`: hash -> files by their names; `refs`: branches and tags. gated, private: who is not
    logged in gets nothing (`hub.TOKEN` is).
    """

    def __init__(self, gated: bool = False, private: bool = False):
        self.gated, self.private = gated, private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit on top of what the branch has."""
        whole = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        told = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in whole.items())
        commit = hashlib.sha1(f"{len(self.commits)}\n{told}".encode()).hexdigest()
        self.commits[commit], self.refs[branch] = whole, commit
        return commit


class HubServer(http.server.ThreadingHTTPServer):
    """`requests` has "METHOD path" of each, as it came; `tokens` what each was authorised by;
    `starts` at which byte each download of a large file began.

    Faults: `cut`: names of files whose next download ends after half of the bytes; `corrupt`: name
    -> how many of its next downloads have a wrong byte; `broken`: a status that all requests get.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.uploaded: dict[str, bytes] = {}
        self.forget()

    def forget(self) -> None:
        """What was asked, and faults."""
        self.requests: list[str] = []
        self.tokens: list[str] = []
        self.starts: list[int] = []
        self.cut: set[str] = set()
        self.corrupt: dict[str, int] = {}
        self.broken = 0

    def add(self, name: str, folder: Path, **how: bool) -> str:
        """A repository with a folder's files; its first commit."""
        self.repositories[name] = Repository(**how)
        return self.repositories[name].commit(files_in(folder))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.server_port}/cdn"

    def downloads(self) -> list[str]:
        """Names of the files whose bytes were asked for."""
        found = [r for r in self.requests if r.startswith("GET")]
        return [
            urllib.parse.unquote(r.rsplit("/", 1)[1].split("?name=")[-1])
            for r in found
            if "/resolve/" in r or "/cdn/" in r
        ]


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def point_at(url: str, home: Path, monkeypatch: pytest.MonkeyPatch, offline: bool = False) -> None:
    """The library of this process asks that server and keeps its cache in `home`; nobody is logged
    in. (It reads the environment when it is imported, and looks at these names later.)
    """
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def environment(url: str, home: Path) -> dict[str, str]:
    """The same for another process."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
    }


def problems_of(card: str) -> list[str]:
    """What the Hub's /api/validate-yaml refuses of a card's metadata, as far as ours have them
    (huggingface.co/docs/hub/model-cards, "Model card metadata").
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard_data import model_index_to_eval_results

    data = ModelCard(card).data.to_dict()
    repository = lambda names: all(re.fullmatch(_REPO, name) for name in names)
    listed = lambda key: data[key] if isinstance(data.get(key), list) else [data.get(key, "")]
    wrong = [
        ("license", data.get("license") in _LICENSES),
        ("language", all(re.fullmatch(r"[a-z]{2,3}", str(x)) for x in listed("language"))),
        ("pipeline_tag", data.get("pipeline_tag") in {None, *_TASKS}),
        ("library_name", data.get("library_name") == "mdmspeech"),
        ("base_model", "base_model" not in data or repository(listed("base_model"))),
        ("datasets", "datasets" not in data or repository(listed("datasets"))),
        ("tags", all(isinstance(tag, str) and tag for tag in listed("tags"))),
    ]
    if "model-index" in data:
        _, results = model_index_to_eval_results(data["model-index"])
        fine = all(isinstance(each.metric_value, (int, float)) for each in results)
        wrong.append(("model-index", bool(results) and fine))
    return [name for name, fine in wrong if not fine]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.server.tokens.append(token)
        self.known = token == TOKEN
        path, _, self.query = self.path.partition("?")
        if self.server.broken:
            return self._error(self.server.broken, "", "broken on purpose")
        for pattern, what in _ROUTES.items():
            if found := re.fullmatch(pattern, path):
                return getattr(self, what)(*map(urllib.parse.unquote, found.groups()))
        return self._error(404, "", f"the double has no {self.command} {path}")

    # ---- Looking up and fetching ----

    def _resolve(self, name: str, revision: str, file: str) -> None:
        found = self._commit(name, revision, contents=True)
        if found is None:
            return None
        commit, files = found
        about = {"X-Repo-Commit": commit}
        if file not in files:
            return self._error(404, "EntryNotFound", "Entry not found", about)
        data = files[file]
        if not file.endswith(".safetensors"):
            return self._send(200, data, {**about, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        digest = hashlib.sha256(data).hexdigest()
        about |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        return self._send(
            302, b"", {**about, "Location": f"{self.server.cdn}/{digest}?name={file}"}
        )

    def _cdn(self, digest: str) -> None:
        name = self.query.removeprefix("name=")
        every = [f for r in self.server.repositories.values() for f in r.commits.values()]
        data = next(
            data
            for files in every
            for data in files.values()
            if hashlib.sha256(data).hexdigest() == digest
        )
        if self.server.corrupt.get(name, 0):
            self.server.corrupt[name] -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") :].split("-")[0])
        self.server.starts.append(start)
        about = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        if name in self.server.cut:
            self.server.cut.remove(name)
            return self._send(200, data, about, stop=len(data) // 2)
        return self._send(206 if start else 200, data[start:], about)

    def _info(self, name: str, revision: str = "main") -> None:
        if found := self._commit(name, revision):
            commit, files = found
            names = [{"rfilename": file} for file in files]
            self._json({"id": name, "sha": commit, "siblings": names})

    def _tree(self, name: str, revision: str) -> None:
        if found := self._commit(name, revision):
            self._json([_entry(file, data) for file, data in found[1].items()])

    def _commit(self, name: str, revision: str, contents: bool = False):
        repo = self.server.repositories.get(name)
        if repo is None or (repo.private and not self.known):
            # as the real one: who is not logged in is not told which it is
            self._error(404 if self.known else 401, "RepoNotFound", "Repository not found")
            return None
        if contents and repo.gated and not self.known:
            status = 403 if self.headers.get("Authorization") else 401
            self._error(status, "GatedRepo", f"Access to model {name} is restricted")
            return None
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._error(404, "RevisionNotFound", "Invalid rev id")
            return None
        return commit, repo.commits[commit]

    # ---- Pushing ----

    def _create(self) -> None:
        asked = json.loads(self.body)
        if not self.known:
            return self._error(401, "", "Invalid username or password.")
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.startswith("others/"):
            return self._error(403, "", "You don't have the rights to create a model there")
        status = 409 if name in self.server.repositories else 200
        private = asked.get("visibility") == "private"
        self.server.repositories.setdefault(name, Repository(private=private))
        return self._json({"url": f"{self.server.url}/{name}", "name": name}, status)

    def _validate(self) -> None:
        asked = json.loads(self.body)
        wrong = [{"message": f'"{name}" is wrong'} for name in problems_of(asked["content"])]
        self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def _preupload(self, name: str, revision: str) -> None:
        modes = {True: "lfs", False: "regular"}
        files = [
            {
                "path": each["path"],
                "uploadMode": modes[each["path"].endswith(".safetensors")],
                "shouldIgnore": False,
                "oid": None,
            }
            for each in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def _lfs_batch(self, name: str) -> None:
        wanted = json.loads(self.body)["objects"]
        upload = lambda oid: {"upload": {"href": f"{self.server.url}/lfs/{oid}"}}
        self._json({"objects": [{**each, "actions": upload(each["oid"])} for each in wanted]})

    def _lfs_put(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.uploaded[oid] = self.body
        self._send(200, b"", {})

    def _push(self, name: str, revision: str) -> None:
        repo = self.server.repositories[name]
        if not self.known or (revision != "main" and revision not in repo.refs):
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "lfsFile":
                files[item["value"]["path"]] = self.server.uploaded[item["value"]["oid"]]
        pull = "create_pr=1" in self.query
        commit = repo.commit(files, "refs/pr/1" if pull else revision)
        url = f"{self.server.url}/{name}"
        return self._json(
            {
                "commitUrl": f"{url}/commit/{commit}",
                "commitOid": commit,
                "pullRequestUrl": f"{url}/discussions/1" if pull else None,
            }
        )

    # ---- Answers ----

    def _json(self, value, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, more: dict | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Code": code, "X-Error-Message": message, **(more or {})})

    def _send(self, status: int, body: bytes, headers: dict, stop: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])
        if stop is not None:
            self.close_connection = True


def _entry(name: str, data: bytes) -> dict:
    about = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(".safetensors"):
        digest = hashlib.sha256(data).hexdigest()
        about["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
    return about


_ROUTES = {
    rf"/({_REPO})/resolve/([^/]+)/(.+)": "_resolve",
    r"/cdn/(\w+)": "_cdn",
    rf"/api/models/({_REPO})/revision/([^/]+)": "_info",
    rf"/api/models/({_REPO})/tree/([^/]+)": "_tree",
    r"/api/repos/create": "_create",
    r"/api/validate-yaml": "_validate",
    rf"/api/models/({_REPO})/preupload/([^/]+)": "_preupload",
    rf"/({_REPO})\.git/info/lfs/objects/batch": "_lfs_batch",
    r"/lfs/(\w+)": "_lfs_put",
    rf"/api/models/({_REPO})/commit/([^/]+)": "_push",
    rf"/api/models/({_REPO})": "_info",
}
