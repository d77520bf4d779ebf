"""The reward model: load, save, refuse; and the loss, however a batch is split."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import executed, solved
from vlprm.model import token_nats
from vlprm.model.checkpoint_config import CheckpointConfig, load_checkpoint_config
from vlprm.model.loading import load_policy
from vlprm.model.reward_loading import load_reward_model, save_reward_model
from vlprm.model.reward_model import surprise
from vlprm.schema import Problem
from vlprm.scoring.tree import score, score_steps, score_whole
from vlprm.tasks import TASKS


@pytest.fixture(
    params=[(False, ()), (True, ()), (False, ("value", "concentration"))], ids=["state", "surprise", "value"]
)
def trained(backbone: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    surprised, outputs = request.param
    checkpoint = load_reward_model(backbone, new_head="step", reads_surprise=surprised, extra_outputs=outputs)
    torch.manual_seed(1)
    torch.nn.init.normal_(checkpoint.model.score.weight, std=0.1)
    save_reward_model(checkpoint, tmp_path / "prm", CheckpointConfig(head="step"))
    return tmp_path / "prm"


def test_saved_and_loaded_scores_are_equal(trained: Path, backbone: Path, problems: list[Problem]) -> None:
    pairs = [(p, solved(p)) for p in problems[:5]]
    once, again = load_reward_model(trained), load_reward_model(trained)
    assert score_steps(once, pairs) == score_steps(again, pairs)
    assert type(once.model).__name__ == "Qwen3VLForTokenClassification"
    assert set(load_file(trained / "model.safetensors")) >= {"score.weight"}
    # All weights of the backbone, including its language model, are loaded: only the head is new.
    old, new = load_policy(backbone).model.state_dict(), once.model.state_dict()
    assert set(new) - set(old) == {"score.weight"}
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_new_head_knows_nothing_and_has_no_dropout(backbone: Path, problems: list[Problem]) -> None:
    checkpoint = load_reward_model(backbone, new_head="step")
    checkpoint.model.train()
    scores = score_steps(checkpoint, [(problems[0], solved(problems[0]))])[0]
    assert all(abs(s.correct - 1 / 3) < 1e-6 for s in scores)


def test_each_step_is_scored_by_what_comes_before_it(trained: Path, problems: list[Problem]) -> None:
    checkpoint, problem = load_reward_model(trained), problems[0]
    steps = solved(problem)
    whole = score(checkpoint, [(problem, steps)])[0]
    for cut in range(1, len(steps) + 1):
        (part,) = score(checkpoint, [(problem, steps[:cut])])
        assert part == pytest.approx(whole[:cut], abs=1e-5)
    assert score_whole(checkpoint, [(problem, steps)])[0] != pytest.approx(whole[-1], abs=1e-6)


def test_surprise_is_what_the_language_model_gives_to_what_was_written(backbone: Path) -> None:
    """Crops and padding do not count; the batch has shorter rows."""
    checkpoint, policy = load_reward_model(backbone, new_head="step", reads_surprise=True), load_policy(backbone)
    problem, other = TASKS["fine_print"].problem("train", 3), TASKS["chart"].problem("train", 3)
    steps = [executed(step) for step in solved(problem)]
    assert any(step.region for step in steps)
    rows = [checkpoint.inputs.row(problem, steps), checkpoint.inputs.row(other, solved(other)[:1])]
    batch = checkpoint.inputs.step_batch(rows)
    written, ends, before = (batch.pop(name) for name in ("written_in", "step_ends", "before"))
    hidden = checkpoint.model.model(**batch).last_hidden_state
    found = surprise(checkpoint.model.lm_head, hidden, batch["input_ids"], written, before, ends.shape[1])
    for b, row in enumerate(rows):
        alone = checkpoint.inputs.batch([row])
        nats = -policy.model(**alone).logits[0].log_softmax(-1)
        start = row.written_in.index(0)
        for step, end in enumerate(row.step_ends):
            own = [nats[t - 1, row.ids[t]].item() for t in range(start, end + 1) if row.written_in[t] >= 0]
            assert found[b, step].tolist() == pytest.approx([max(own), sum(own)], rel=1e-3)
            start = end + 1
    assert found[1, 1:].abs().max() == 0


def test_logits_over_the_vocabulary_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients are those of all logits at once."""
    torch.manual_seed(0)
    head, hidden, ids = torch.nn.Linear(8, 50), torch.randn(2, 20, 8, requires_grad=True), torch.randint(0, 50, (2, 20))
    chosen, before = torch.rand(2, 20) < 0.7, (torch.arange(20) - 1).clamp(min=0).expand(2, -1)
    called: list[int] = []
    head.register_forward_hook(lambda module, args, output: called.append(len(output)))

    def found(size: int) -> tuple[torch.Tensor, ...]:
        monkeypatch.setattr(token_nats, "LOGITS", size)
        head.zero_grad()
        hidden.grad = None
        nats = token_nats.token_nats(head, hidden, ids, chosen, before)
        (nats * torch.arange(1, len(nats) + 1)).sum().backward()
        assert head.weight.grad is not None
        assert hidden.grad is not None
        return nats.detach(), head.weight.grad, hidden.grad

    count = int(chosen.sum())
    whole = found(1 << 20)
    assert max(called) == count
    called.clear()
    parts = found(7)
    assert max(called) == 7
    assert len(called) == 2 * -(-count // 7)  # in forward, and again in backward
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, parts, strict=True))
    assert len(token_nats.token_nats(head, hidden, ids, torch.zeros_like(chosen), before)) == 0


def test_scores_do_not_depend_on_the_batch(trained: Path, problems: list[Problem]) -> None:
    checkpoint = load_reward_model(trained)
    pairs = [(p, solved(p)[: 1 + i % 3]) for i, p in enumerate(problems)]
    together = score(checkpoint, pairs)
    for pair, scores in zip(pairs, together, strict=True):
        assert score(checkpoint, [pair])[0] == pytest.approx(scores, abs=1e-5)
    assert score(checkpoint, [(problems[0], [])]) == [[]]


def test_what_cannot_be_loaded_is_named(trained: Path, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no reward head"):
        load_reward_model(backbone)
    with pytest.raises(ValueError, match="no checkpoint folder"):
        load_reward_model(tmp_path / "nowhere")
    weights = load_file(trained / "model.safetensors")
    other = tmp_path / "other_head"
    shutil.copytree(trained, other)
    save_file({**weights, "score.weight": torch.zeros(2, 64)}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"other_head has score\.weight of shape \(2, 64\), not \([35], 6[46]\)"):
        load_reward_model(other)
    lacking = tmp_path / "lacking"
    shutil.copytree(trained, lacking)
    dropped = next(name for name in weights if "layers.1" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights"):
        load_reward_model(lacking)
    (trained / "model.safetensors").write_bytes(b"truncated")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_reward_model(trained)
    (trained / "vlprm.json").unlink()
    with pytest.raises(ValueError, match=r"has no reward head \(vlprm\.json says head: none\)"):
        load_reward_model(trained)


def test_verdicts_are_single_tokens_and_dialects_are_known(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the verdict 'certainly not' is \d+ tokens in this tokenizer"):
        load_reward_model(backbone, new_head="verdict", verdicts=("+", "certainly not"))
    shutil.copytree(backbone, tmp_path / "b")
    CheckpointConfig(dialect="pixels").save(tmp_path / "b")
    with pytest.raises(ValueError, match="declares the box dialect 'pixels'; declare one of absolute_resized"):
        load_policy(tmp_path / "b")
    (tmp_path / "b" / "vlprm.json").write_text("{}")
    with pytest.raises(ValueError, match=r'declares no box dialect; add "dialect": one of absolute_resi.*none'):
        load_policy(tmp_path / "b")


@pytest.mark.parametrize("config", ['{"model_type": "bert"}', '{"model_type": "of next year"}', "{}"])
def test_a_checkpoint_of_another_kind_of_model_is_named(config: str, tmp_path: Path) -> None:
    CheckpointConfig().save(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config\.json is not an image-text-to-text model .* correct it"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"max_pixels": "16384"}, 'max_pixels: "16384" is not a whole number'),
        ({"min_pixels": True}, "min_pixels: true is not a whole number"),
        ({"dialect": None}, "dialect: null is not a text"),
        ({"head": "token"}, 'head: "token" is not one of none, step, verdict'),
        ({"step_format": "lines@1"}, 'step_format: "lines@1" is not one of tagged@1'),
        ({"aggregation": "median"}, 'aggregation: "median" is not one of '),
        ({"dialekt": "relative_1"}, "unknown field dialekt"),
        ([], "it is a list, not an object"),
    ],
)
def test_a_profile_that_says_nothing_known_is_refused(record: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "vlprm.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"vlprm\.json does not describe a checkpoint, correct it: {message}"):
        load_checkpoint_config(tmp_path)
