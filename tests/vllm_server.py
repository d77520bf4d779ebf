"""A real vLLM on the CPU, started for a test on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from vlprm.serving.config import ServerConfig

START = 1200.0  # seconds that a server may take to start: half a minute on an idle machine, minutes on a busy one
LIMIT = 1800 + START  # seconds that a test may take, its server's start included


@contextmanager
def vllm(checkpoint: Path, folder: Path, name: str, *flags: str) -> Iterator[ServerConfig]:
    """Serves the checkpoint under the name, in float32; writes the log into the folder."""
    python = os.environ.get("VLLM_PYTHON")
    if python is None:
        pytest.fail("VLLM_PYTHON names no Python with vLLM; run `make test-server`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
    common = ["--served-model-name", name, "--dtype", "float32", "--enforce-eager", "--generation-config", "vllm"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *common, *flags, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
        )  # fmt: skip
    try:
        _wait_until_up(process, port, folder / "log")
        yield ServerConfig((f"http://127.0.0.1:{port}/v1",), name, concurrency=32, timeout=300.0)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """vLLM ignores a request to end while it starts."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.time() + START
    while time.time() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(1)
    pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")
