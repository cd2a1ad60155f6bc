"""OpenAI's clients for Node and their Agents SDK, unchanged, over TLS with a certificate of our own."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_session
import soxr

from mdmspeech.audio.wave import to_int16

HERE = Path(__file__).parent
MODULES = Path(os.environ.get("MDMSPEECH_NODE_MODULES", HERE / "node_modules"))
KEY = "a-key-of-the-tests"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("openssl") and (MODULES / "openai").is_dir()),
    reason="node, openssl or npm's clients are not installed; `make clients` tests them",
)


@pytest.fixture(scope="module")
def secure(running, tmp_path_factory):
    """A server with TLS and a key, and the environment of its clients."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    options = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key), "api_keys": (KEY,)}
    with running(**options) as server:
        address = f"127.0.0.1:{server.port}/v1"
        yield {
            "KEY": KEY,
            "BASE_URL": f"https://{address}",
            "URL": f"wss://{address}/realtime?model=small",
            "NODE_EXTRA_CA_CERTS": str(certificate),
        }


def node(script, environment, folder, sound=b""):
    """Runs a script beside npm's packages: the objects that it prints."""
    for name in (script, "package.json"):
        shutil.copy(HERE / name, folder / name)
    (folder / "node_modules").symlink_to(MODULES.resolve())
    done = subprocess.run(
        ["node", script], cwd=folder, env=os.environ | environment, input=sound, capture_output=True,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_openai_node(secure, tmp_path):
    headers, subprotocol = node("openai_node.mjs", secure, tmp_path)
    assert headers["status"] == subprotocol["status"] == "completed"
    assert headers["bytes"] == subprotocol["bytes"] > 10_000 and headers["bytes"] % 2 == 0
    assert headers["said"] == subprotocol["said"] != ""
    assert headers["kinds"] == subprotocol["kinds"]
    assert subprotocol["protocol"] == "realtime"


def test_openai_agents(secure, tmp_path):
    question = soxr.resample(small_session.asked(), 16_000, 24_000)
    quiet = np.zeros(12_000)
    sound = to_int16(np.concatenate([quiet, question, quiet, quiet]))
    (found,) = node("openai_agents.mjs", secure, tmp_path, sound.astype("<i2").tobytes())
    assert found["errors"] == [] and found["audio"] > 10_000
    assert "conversation.item.input_audio_transcription.completed" in found["kinds"]
    assert [role for role, _, _ in found["history"]] == ["user", "assistant"] * 2
    typed, answer, spoken, second = (content[0] for _, _, content in found["history"])
    assert typed["text"] == "what is it ?" and answer["transcript"]
    assert spoken["type"] == "input_audio" and spoken["transcript"] is not None
    assert second["type"] == "output_audio"
