"""`mdmspeech preflight --account`: buckets are looked at with the permissions of the machines' service
account, by acting as it, where one may; the log-in and IAM are answered by a server on this machine.
"""

import contextlib
import http.server
import json
import threading

import pytest
import small_corpus
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import iam

from mdmspeech import remote
from mdmspeech.cli import main
from mdmspeech.errors import UserError
from mdmspeech.remote.accounts import credentials_of

ACCOUNT = "trainer@proj.iam.gserviceaccount.com"
RUN = ["preflight", "--config", "experiments/compact_talker.py", "--disks", "empty", "--workdir",
    "gs://bucket/run", "--set"]  # fmt: skip
AS_IT = "Bearer of the account"


@contextlib.contextmanager
def google(may):
    """Logs people in, and lets them act as an account: may is 200, or IAM's (status, word) why not."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            code, answer = 200, {"access_token": "mine", "expires_in": 3600, "token_type": "Bearer"}
            if self.path != "/login":
                asked.append((self.path, self.headers["Authorization"]))
                code, answer = 200, {
                    "accessToken": AS_IT.removeprefix("Bearer "), "expireTime": "2100-01-01T00:00:00Z",
                }  # fmt: skip
                if may != 200:
                    code, answer = may[0], {"error": {"code": may[0], "status": may[1]}}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def key():
    return (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@pytest.fixture
def log_in(key, tmp_path, monkeypatch):
    """log_in(address): this person, by the file of application default credentials."""

    def write(address):
        about = {"type": "service_account", "client_email": "me@proj", "private_key": key}
        (tmp_path / "me.json").write_text(json.dumps(about | {"token_uri": f"{address}/login"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "me.json"))
        monkeypatch.setattr(iam, "_IAM_ENDPOINT", address + "/{}:generateAccessToken")

    return write


def look(capsys, *words):
    """(exit code, {check: what it says}) with random data."""
    code = main([*RUN, "data.parts=random", *words])
    out, err = capsys.readouterr()
    lines = [line for line in (out + err).splitlines() if line.startswith(("ok", "WRONG"))]
    return code, {
        line[6:16].strip(): line[:6].replace("ok", "").strip() + line[16:] for line in lines
    }


def of_the_account(method):
    """A fault of those requests alone that come with the account's token."""
    return lambda proxy: (
        lambda number, verb, path: "403" * (verb in method and proxy.tokens[-1] == AS_IT)
    )


def test_the_workdir_is_tried_as_you_and_as_the_machines(bucket, log_in, capsys):
    with google(200) as (address, asked):
        log_in(address)
        code, told = look(capsys, "--account", ACCOUNT)
    assert code == 0 and told["account"] == f"buckets are looked at as {ACCOUNT}"
    assert f"removed a probe, as you and as {ACCOUNT}; a new run" in told["workdir"]
    assert asked[0] == (f"/{ACCOUNT}:generateAccessToken", "Bearer mine")
    written = [
        token
        for token, request in zip(bucket.tokens, bucket.requests, strict=True)
        if request.startswith("POST")
    ]
    assert len(written) == 2 and written[1] == AS_IT != written[0], "first as this person"
    assert remote.list_names("gs://bucket/run") == []


@pytest.mark.parametrize(
    ("methods", "said"),
    [(("POST", "PUT"), "cannot write"), (("GET",), "cannot read"), (("DELETE",), "cannot remove")],
)
def test_what_the_machines_may_not(bucket, log_in, capsys, methods, said):
    bucket.faults = of_the_account(methods)(bucket)
    with google(200) as (address, _):
        log_in(address)
        code, told = look(capsys, "--account", ACCOUNT)
    assert code == 2 and told["workdir"].startswith("WRONG"), told
    assert f"as {ACCOUNT}, the machines' account: {said} gs://bucket/run" in told["workdir"]


def test_data_that_only_you_may_read(bucket, log_in, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / "cache"))
    small_corpus.write(tmp_path / "corpus")
    for file in sorted((tmp_path / "corpus").rglob("*")):
        if file.is_file():
            name = file.relative_to(tmp_path / "corpus").as_posix()
            remote.upload(file, f"gs://bucket/corpus/{name}")
    config = ["preflight", "--config", "experiments/compact_codec.py", *RUN[3:], "data.parts=open"]
    for allowed in (True, False):
        if not allowed:
            bucket.faults = lambda n, verb, path: (
                "403" * ("corpus" in path and bucket.tokens[-1] == AS_IT)
            )
        monkeypatch.setenv("MDMSPEECH_CACHE", str(tmp_path / f"cache {allowed}"))
        with google(200) as (address, _):
            log_in(address)
            code = main([*config, "--account", ACCOUNT, "--data", "gs://bucket/corpus"])
        out, err = capsys.readouterr()
        assert code == (0 if allowed else 2), out + err
        assert ("records to train on" in out) == allowed
        assert allowed or "not permitted" in err


@pytest.mark.parametrize(
    ("may", "said"),
    [
        ((403, "PERMISSION_DENIED"), "roles/iam.serviceAccountTokenCreator"),
        ((500, "INTERNAL"), "roles/storage.objectUser"),
        (None, "gcloud auth application-default login"),
    ],
)
def test_what_cannot_be_known_is_said_and_stops_nobody(
    bucket, log_in, capsys, monkeypatch, may, said
):
    with google(may) as (address, _):
        log_in(address)
        if may is None:
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
            monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
            monkeypatch.setenv("NO_GCE_CHECK", "true")
        code, told = look(capsys, "--account", ACCOUNT)
    assert code == 0 and told["account"].startswith("NOT KNOWN") and said in told["account"]
    assert "removed a probe, as you; a new run" in told["workdir"]
    assert AS_IT not in bucket.tokens


def test_an_account_that_does_not_exist(bucket, log_in, capsys):
    with google((404, "NOT_FOUND")) as (address, _):
        log_in(address)
        code, told = look(capsys, "--account", ACCOUNT)
        with pytest.raises(UserError, match="gcloud iam service-accounts list"):
            credentials_of(ACCOUNT)
    assert code == 2 and f"there is no service account {ACCOUNT}" in told["account"]


def test_without_an_account_it_is_said_who_looked(bucket, capsys):
    code, told = look(capsys)
    assert code == 0 and told["account"] == (
        "NOT KNOWN which the machines have: buckets are looked at as you alone"
    )


def test_hours_that_are_used_up(bucket, capsys):
    row = {
        "began": 0.0,
        "ended": 1.0,
        "first": 0,
        "last": 1,
        "seconds": {"step": 5000, "redone": 2200},
    }
    remote.write_text("gs://bucket/run/ledger.json", json.dumps({"starts": [row], "saved": {}}))
    for hours, code in (("2", 2), ("2.5", 0), ("0", 0)):
        got, told = look(capsys, "--set", f"train.max_hours={hours}")
        assert got == code and ("used up: 1 starts of this run took 2.0" in told["workdir"]) == (
            code == 2
        )
    remote.remove("gs://bucket/run/ledger.json")
