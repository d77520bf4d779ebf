"""The server of a run's page: this machine only, four addresses and no file names, and the contents of a run folder."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.shown import EVIL, Shown, hostile, problem
from vlprm.tasks import TASKS
from vlprm.viewer.serve import SMALL, PageServer
from vlprm.viewer.trees import LabelledTrees


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(0, "a run", [], Shown([problem(0), hostile(), problem(2)])) as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        made.shutdown()


def asked(server: PageServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_facts_come_in_parts_and_problems_one_by_one(server: PageServer) -> None:
    first = json.loads(asked(server, "/facts?from=0&count=2")[1])
    rest = json.loads(asked(server, "/facts?from=2&count=2")[1])
    assert [len(first), len(rest)] == [2, 1]
    assert json.loads(asked(server, "/problem?at=2")[1])["id"] == rest[0]["id"] == "item/0002"
    status, small = asked(server, "/image?at=0&index=0&small=1")
    assert status == 200
    assert len(small) <= SMALL
    assert Image.open(io.BytesIO(asked(server, "/image?at=0&index=0&small=0")[1])).size == (512, 512)


def test_it_listens_on_the_loopback_address_alone(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_named(server: PageServer) -> None:
    for port in (server.server_port, 99_999):
        with pytest.raises(ValueError, match=f"cannot listen on port {port}"):
            PageServer(port, "a run", [], Shown([problem(0)]))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_page_of_another_name_gets_nothing(server: PageServer, host: str) -> None:
    """A foreign name that resolves to this machine would let a foreign page read the run."""
    for path in ("/", "/facts?from=0&count=1", "/image?at=0&index=0&small=0"):
        status, body = asked(server, path, host)
        assert status == 421
        assert b"item" not in body


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../../../../etc/passwd", 404), ("/%2e%2e/%2e%2e/etc/passwd", 404), ("//etc/passwd", 404),
        ("/results.json", 404), ("/problem?at=3", 404), ("/image?at=0&index=1&small=0", 404),
        ("/problem?at=-1", 400), ("/problem?at=1e3", 400), ("/problem?at=", 400), ("/problem", 400),
        ("/problem?at=" + "9" * 5000, 400), ("/facts?from=0&count=x", 400),
    ],
)  # fmt: skip
def test_other_addresses_name_nothing(server: PageServer, path: str, status: int) -> None:
    found, body = asked(server, path)
    assert found == status
    assert b"root:" not in body


def test_nothing_can_be_sent_to_it(server: PageServer) -> None:
    assert asked(server, "/problem?at=0", method="POST")[0] == 400
    assert asked(server, "/problem?at=0", "evil.example", method="POST")[0] == 421


def test_text_of_models_is_json_to_the_letter(server: PageServer) -> None:
    status, body = asked(server, "/problem?at=1")
    assert status == 200
    assert json.loads(body)["question"].startswith(EVIL[:60])


def test_the_trees_of_a_dataset_are_read_from_any_place(dataset: Path) -> None:
    trees = LabelledTrees(dataset)
    assert len(trees) == 10
    last, first = trees.view(9), trees.view(0)
    assert last.benchmark == "fine_print"
    assert trees.images(0) == TASKS["count_grid"].problem("train", 0).images
    assert first.tree[0].parent == -1
    assert first.tree[0].mc_valid > 0
    assert all(node.parent < i for i, node in enumerate(first.tree))
    assert {node.step.kind for node in first.tree} > {"perception", "answer"}
