"""What cannot be is refused before the model is opened, by a message with a cure that works."""

import subprocess

import pytest

from mdmspeech.errors import UserError
from mdmspeech.serving import settings
from mdmspeech.serving.settings import Settings, gather_keys, is_loopback

KEY = "a-key-of-some-length"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "0.0.0.0"}, "host='0.0.0.0' can be reached from other machines.* --api-key"),
        ({"host": "::"}, "can be reached"),
        ({"host": "192.168.1.7"}, "can be reached"),
        ({"host": "talk.example"}, "can be reached"),
        ({"host": "localhost.example"}, "can be reached"),
        ({"host": "127.0.0.1.example"}, "can be reached"),
        ({"host": ""}, "give an address or a name"),
        ({"host": "http://localhost"}, "give an address or a name"),
        ({"port": 65536}, "port=65536"),
        ({"port": -1}, "port=-1"),
        ({"port": True}, "port=True"),
        ({"max_sessions": 0}, "max_sessions=0"),
        ({"max_queue": -1}, "max_queue=-1"),
        ({"max_body": 10}, "max_body=10"),
        ({"max_audio_s": 0.0}, "max_audio_s=0.0"),
        ({"max_session_s": float("nan")}, "max_session_s=nan"),
        ({"idle_s": float("inf")}, "idle_s=inf"),
        ({"drain_s": -1.0}, "drain_s=-1.0"),
        ({"rate_limit": 0}, "rate_limit=0"),
        ({"context": 5}, "context=5"),
        ({"api_keys": ("short",)}, "8 characters or more"),
        ({"api_keys": (KEY, "a key of words")}, "letters, digits"),
        ({"api_keys": ("schlüsselschlüssel",)}, "letters, digits"),
        ({"api_keys": ("",)}, "8 characters or more"),
        ({"allow_origins": ("talk.example",)}, "allowed origin 'talk.example'"),
        ({"allow_origins": ("https://talk.example/",)}, "without a path"),
        ({"allow_origins": ("https://talk.example/page",)}, "without a path"),
        ({"allow_origins": ("file:///page",)}, "allowed origin"),
        ({"allow_hosts": ("https://talk.example",)}, "without scheme and port"),
        ({"allow_hosts": ("talk.example:80",)}, "without scheme and port"),
        ({"ssl_certfile": "cert.pem"}, "both --ssl-certfile and --ssl-keyfile"),
        ({"ssl_keyfile": "key.pem"}, "both --ssl-certfile and --ssl-keyfile"),
        ({"ssl_certfile": "no.pem", "ssl_keyfile": "no.key"}, "no certificate and its key"),
    ],
)
def test_what_cannot_be(given, told):
    with pytest.raises(UserError, match=told):
        Settings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"host": "0.0.0.0", "api_keys": (KEY,)},
        {"host": "talk.example", "api_keys": (KEY, "another-key")},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.8.9.1"},
        {"allow_origins": ("https://talk.example", "http://localhost:3000", "*")},
        {"allow_hosts": ("talk.example", "[fe80::1]", "*")},
        {"port": 0, "rate_limit": 1, "drain_s": 0.0, "max_queue": 0},
        {"api_keys": ("sk-proj_0123.ABC~+",)},
    ],
)
def test_what_can(given):
    Settings(**given)


def test_its_url():
    for host, url in (
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://localhost:80"),
        ("::", "http://localhost:80"),
        ("talk.example", "http://talk.example:80"),
    ):
        assert Settings(host=host, api_keys=(KEY,)).url(80) == url


def test_addresses_of_this_machine():
    for name in ("localhost", "LOCALHOST.", "127.0.0.1", "127.1.2.3", "::1", "[::1]"):
        assert is_loopback(name), name
    for name in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example", "", "127"):
        assert not is_loopback(name), name


def test_keys_of_flags_file_and_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(settings.KEY_VARIABLE, raising=False)
    assert gather_keys((), None) == ()
    (tmp_path / "keys").write_text("# ours\nfrom-a-file-1\n\n  from-a-file-2  \n")
    monkeypatch.setenv(settings.KEY_VARIABLE, "from-env-1, from-env-2,,given-key")
    assert gather_keys(("given-key",), str(tmp_path / "keys")) == (
        "given-key", "from-a-file-1", "from-a-file-2", "from-env-1", "from-env-2",
    )  # fmt: skip
    monkeypatch.delenv(settings.KEY_VARIABLE)
    monkeypatch.setenv(settings.KEY_FILE_VARIABLE, str(tmp_path / "keys"))
    assert gather_keys((), None) == ("from-a-file-1", "from-a-file-2")
    (tmp_path / "other").write_text("of-the-flag-1\n")
    assert gather_keys((), str(tmp_path / "other")) == ("of-the-flag-1",)
    monkeypatch.setenv(settings.KEY_FILE_VARIABLE, "")
    assert gather_keys((), None) == ()
    (tmp_path / "empty").write_text("# none yet\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, told in (
        ("empty", "has no key in it"),
        ("binary", "cannot be read"),
        ("no", "cannot"),
    ):
        with pytest.raises(UserError, match=told):
            gather_keys((), str(tmp_path / name))


def test_a_certificate_and_the_key_of_another(tmp_path):
    def make(name):
        files = [tmp_path / f"{name}.pem", tmp_path / f"{name}.key"]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                   "-nodes", "-subj", "/CN=localhost", "-out", files[0], "-keyout", files[1]]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        return map(str, files)

    (cert, key), (_, other) = make("one"), make("two")
    assert Settings(ssl_certfile=cert, ssl_keyfile=key).url(1) == "https://127.0.0.1:1"
    with pytest.raises(UserError, match="no certificate and its key"):
        Settings(ssl_certfile=cert, ssl_keyfile=other)
