"""Weights given to servers through vLLM's interface, against a server that answers as vLLM does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from train import grpo
from train.policy.grpo_config import GrpoConfig
from train.policy.learner import Learner
from train.policy.sync import WeightSync
from vlprm.errors import UserError
from vlprm.serving.config import ModelConfig, ServerConfig


class Handler(BaseHTTPRequestHandler):
    """vLLM's endpoints for weights, with VLLM_SERVER_DEV_MODE=1."""

    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if self.path in self.server.fails:
            self._send(404, {"error": "Not Found"})
            return
        if self.path == "/update_weight_version" and not self.server.stuck:
            self.server.version = body["new_version"]
        if self.path == "/v1/chat/completions":
            self._send(200, {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "length"}]})
            return
        self._send(200, {"results": [None]} if self.path == "/collective_rpc" else None)

    def do_GET(self) -> None:
        self._send(200, {"weight_version": self.server.version})

    def _send(self, status: int, answer: Any) -> None:
        text = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.version, made.fails, made.stuck = [], "default", set(), False
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def sent(server: Any, folder: Path, version: str) -> None:
    async def send() -> None:
        config = ServerConfig((f"http://127.0.0.1:{server.server_port}/v1",), "policy", retries=0, timeout=10.0)
        sync = WeightSync(config)
        try:
            await sync.send(folder, version)
        finally:
            await sync.close()

    asyncio.run(send())


def test_a_server_loads_the_folder_between_pause_and_resume(server: Any, tmp_path: Path) -> None:
    sent(server, tmp_path, "run-3")
    assert server.asked == [
        ("/pause?mode=wait", {}),
        ("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}),
        ("/reset_prefix_cache", {}),
        ("/update_weight_version", {"new_version": "run-3"}),
        ("/resume", {}),
    ]
    assert server.version == "run-3"


def test_a_server_that_does_not_load_goes_on_and_is_named(server: Any, tmp_path: Path) -> None:
    server.fails = {"/collective_rpc"}
    with pytest.raises(UserError, match=r"does not take new weights \(collective_rpc: .*configs/policy/served.yaml"):
        sent(server, tmp_path, "run-3")
    assert server.asked[-1] == ("/resume", {})


def test_a_server_with_other_weights_is_refused(server: Any, tmp_path: Path) -> None:
    server.stuck = True
    with pytest.raises(UserError, match="samples with the weights 'default', not 'run-3'; restart it"):
        sent(server, tmp_path, "run-3")


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_plan_gives_a_server_no_weights_and_writes_nothing(server: Any, tmp_path: Path, dry_run: bool) -> None:
    address = f"http://127.0.0.1:{server.server_port}/v1"
    policy = ModelConfig("builtin/policy", ServerConfig((address,), "policy", retries=0, timeout=10.0))
    config = GrpoConfig(tmp_path / "run", policy, dry_run=dry_run)
    learner = Learner(config, grpo.load_trained(config))

    async def asked() -> None:
        async with grpo.served(config, learner) as engine_of:
            await engine_of()

    asyncio.run(asked())
    assert ("/pause?mode=wait" in [path for path, _ in server.asked]) is not dry_run
    assert config.run.exists() is not dry_run
