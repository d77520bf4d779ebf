"""Published reward models on tiny random models of the real classes, with stand-in prompts: the same tokens as the
public reader, written out here, and the same scores as a direct forward pass."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from eval import steps
from eval.run import main as run_methods
from eval.runs.config import RunConfig
from eval.step_scores.config import StepsConfig
from tests.scoring.test_served_scores import listed
from tests.stand_in import Answer, Body, StandIn, config_of
from tests.step_benchmarks.test_step_benchmarks import human_row, process_row, write_rows
from tests.tiny_backbones import QWEN2_TEMPLATE, SIDE, SIGLIP, VOCABULARY, WIDTH, _with_tokens, _write
from vlprm.builtin.make import make_tokenizer
from vlprm.errors import ProblemError, UserError
from vlprm.images import open_image, png
from vlprm.integrations.trl import step_reward
from vlprm.model.loading import Checkpoint
from vlprm.published import PROTOCOLS
from vlprm.published.load import load
from vlprm.published.text import published_text
from vlprm.runs.config import parse
from vlprm.runs.pools import stored_pools
from vlprm.schema import Problem, Region, Step, StepScore
from vlprm.scoring.aggregate import aggregated
from vlprm.scoring.served import ServedScorer
from vlprm.scoring.tree import score
from vlprm.serving.config import ModelConfig
from vlprm.step_benchmarks import BENCHMARKS
from vlprm.steps import parse_step

PROMPT = "You judge steps.\n\n- Answer **+** or **-**."
STEPS = [parse_step(text) for text in ("Row 1 has 3 red.", "So 3 + 2 - 1 = 4.\n", "\nIt is 4:\n- yes")]
PIXELS = (16 * 28 * 28, 40 * 28 * 28)  # limits of the tiny Qwen; the released limits make thousands of tokens
PLACE = {"qwen_vl_prm": "qwen2_5_vl", "visual_prm": "internvl", "mm_prm": "internvl"}


@pytest.fixture(autouse=True)
def _stand_in_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocols with the hash of the stand-in prompt, and with few pixels."""
    for name, protocol in PROTOCOLS.items():
        text = dataclasses.replace(protocol.prompt, sha256=hashlib.sha256(PROMPT.encode()).hexdigest())
        pixels = PIXELS if protocol.pixels else None
        monkeypatch.setitem(PROTOCOLS, name, dataclasses.replace(protocol, prompt=text, pixels=pixels))


@pytest.fixture
def released(tiny_backbone: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The folder of a tiny model as if it were released, with the public file that holds its prompt."""

    def made(protocol: str) -> Path:
        folder = tmp_path / protocol
        shutil.copytree(tiny_backbone(PLACE[protocol]), folder)
        (folder / "vlprm.json").unlink(missing_ok=True)
        name = Path(PROTOCOLS[protocol].prompt.file).name
        (folder / name).write_text(f'raise SystemExit\nPRM = """\n{PROMPT}\n""".strip()\n')
        if protocol == "mm_prm":
            _with_mark(folder)
        return folder

    return made


def _with_mark(folder: Path) -> None:
    """The token <prm> in the tokenizer and the embeddings."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.add_tokens(["<prm>", "Yes", "No"], special_tokens=True)
    processor.save_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(folder)


def problem_of(*sizes: tuple[int, int], question: str = "How many are red?") -> Problem:
    colours = ((200, 30, 30), (30, 30, 200))
    images = tuple(png(Image.new("RGB", size, colours[i % 2])) for i, size in enumerate(sizes))
    return Problem("p", "t", question, images, "4", "integer")


def row_of(prm: Checkpoint, problem: Problem, steps: list[Step]) -> Any:
    return prm.inputs.row(problem, steps)


def rewards_of(prm: Checkpoint, problem: Problem, *solutions: list[Step]) -> list[list[float | None]]:
    return score(prm, [(problem, steps) for steps in solutions])


# --- Qwen-VL-PRM: one call per step, each a dialogue of the chat template


def test_qwen_vl_prm_reads_what_one_call_per_step_reads(released: Callable[[str], Path]) -> None:
    folder = released("qwen_vl_prm")
    problem = problem_of((150, 90))
    prm = load(f"qwen_vl_prm@{folder}")
    row = row_of(prm, problem, STEPS)
    (rewards,) = rewards_of(prm, problem, STEPS)
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor.size = {"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]}
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    plus, minus = (processor.tokenizer.encode(sign)[0] for sign in "+-")
    height, width = smart_resize(90, 150, 28, 4 * 28 * 28, 16384 * 28 * 28)
    image = open_image(problem.images[0]).resize((width, height))
    for end in range(1, len(STEPS) + 1):
        turns: list[dict[str, Any]] = [{"role": "system", "content": [{"type": "text", "text": PROMPT}]}]
        for k, step in enumerate(STEPS[:end]):
            text = f"### Question:\n{problem.question}\n\n### Solution Process:\n{step.text}" if k == 0 else step.text
            shown = [{"type": "image"}] if k == 0 else []
            turns.append({"role": "user", "content": [*shown, {"type": "text", "text": text}]})
            if k < end - 1:
                turns.append({"role": "assistant", "content": [{"type": "text", "text": "+"}]})
        text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        batch = processor(text=[text], images=[image], padding=True, return_tensors="pt")
        assert batch["input_ids"][0].tolist() == list(row.ids[: row.step_ends[end - 1] + 1])
        with torch.no_grad():
            pair = model(**batch).logits[0, -1, [plus, minus]]
        assert rewards[end - 1] == pytest.approx(float(pair.softmax(-1)[0]), abs=1e-5)


# --- VisualPRM: one pass, a placeholder after each step


def internvl_batch(folder: Path, query: str, images: list[Image.Image], tiles: int) -> tuple[Any, dict[str, Any]]:
    """The query's ids with `<image>` written out as image tokens, and the pixels of the tiles."""
    processor = AutoProcessor.from_pretrained(folder)
    settings = {"crop_to_patches": True, "min_patches": 1, "max_patches": tiles}
    shown = processor.image_processor(images=images, return_tensors="pt", **settings) if images else {}
    for count in shown.get("num_patches", torch.tensor([])).tolist():
        context = "<IMG_CONTEXT>" * processor.image_seq_length * count
        query = query.replace("<image>", f"<img>{context}</img>", 1)
    batch = processor.tokenizer(query, return_tensors="pt")
    return processor.tokenizer, {
        **{name: batch[name] for name in ("input_ids", "attention_mask")},
        **({"pixel_values": shown["pixel_values"]} if images else {}),
    }


@pytest.mark.parametrize("sizes", [((150, 50),), ((56, 56), (60, 200)), ()])
def test_visual_prm_reads_what_its_own_code_reads(
    sizes: tuple[tuple[int, int], ...], released: Callable[[str], Path]
) -> None:
    folder, problem = released("visual_prm"), problem_of(*sizes)
    prm = load(f"visual_prm@{folder}")
    row = row_of(prm, problem, STEPS)
    (rewards,) = rewards_of(prm, problem, STEPS)
    query = f"<|im_start|>system\n{PROMPT}<|im_end|>\n"
    for k, step in enumerate(STEPS):
        question = "<image>\n" * len(sizes) + problem.question
        text = f"### Question:\n{question}\n\n### Solution Process:\n{step.text}" if k == 0 else step.text
        query += f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n+<|im_end|>\n"
    tokenizer, batch = internvl_batch(folder, query, [open_image(data) for data in problem.images], 12)
    ids = batch["input_ids"][0].tolist()
    head = tokenizer("<|im_start|>assistant\n", add_special_tokens=False).input_ids
    target = tokenizer("<|im_start|>assistant\n+<|im_end|>\n", add_special_tokens=False).input_ids
    places = [i + len(head) - 1 for i in range(len(ids)) if ids[i : i + len(target)] == target]
    assert list(row.ids) == ids[: len(row.ids)]
    assert list(row.step_ends) == places
    with torch.no_grad():
        logits = AutoModelForImageTextToText.from_pretrained(folder).eval()(**batch).logits[0, places]
    pair = logits[:, tokenizer.convert_tokens_to_ids(["+", "-"])].softmax(-1)[:, 0]
    assert rewards == pytest.approx(pair.tolist(), abs=1e-5)


# --- MM-PRM: a token after each step


def test_mm_prm_reads_what_its_own_code_reads(released: Callable[[str], Path]) -> None:
    folder, problem = released("mm_prm"), problem_of((150, 50))
    prm = load(f"mm_prm@{folder}")
    row = row_of(prm, problem, STEPS)
    (rewards,) = rewards_of(prm, problem, STEPS)
    process = "<prm>".join(step.text for step in STEPS) + "<prm>"
    query = f"<|im_start|>system\n{PROMPT}<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    query += f"<image>\nQuestion: {problem.question}\nProcess: {process}<|im_end|>\n"
    tokenizer, batch = internvl_batch(folder, query, [open_image(problem.images[0])], 6)
    ids = batch["input_ids"][0].tolist()
    places = [i for i, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("<prm>")]
    assert list(row.ids) == ids[: len(row.ids)]
    assert list(row.step_ends) == places
    with torch.no_grad():
        logits = AutoModelForImageTextToText.from_pretrained(folder).eval()(**batch).logits[0, places]
    pair = logits[:, tokenizer.convert_tokens_to_ids(["Yes", "No"])].softmax(-1)[:, 0]
    assert rewards == pytest.approx(pair.tolist(), abs=1e-5)


# --- URSA-RM: a token after each step, and a linear head


def ursa(folder: Path) -> None:
    """A tiny model of DeepSeek-VL's hybrid tower and Qwen2's text layers, with a head of one output."""
    text = " ".join(step.text for step in STEPS)
    tokenizer = _with_tokens(make_tokenizer([text], VOCABULARY), image_token="<|image|>")
    tokenizer.add_tokens([" и"])
    sizes = {"size": {"height": SIDE, "width": SIDE}, "high_res_size": {"height": 64, "width": 64}}
    images = hf.DeepseekVLHybridImageProcessor(**sizes, min_size=14)
    processor = hf.DeepseekVLHybridProcessor(images, tokenizer, QWEN2_TEMPLATE, num_image_tokens=16)
    high = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64, "output_channels": 16}
    high |= {"image_size": 64, "patch_size": 4, "window_size": 4, "global_attn_indexes": [0, 1]}
    model_class = hf.DeepseekVLHybridForConditionalGeneration
    parts = {"vision_config": SIGLIP, "high_res_vision_config": {"model_type": "sam_vision_model", **high}}
    ids = {"image_token_id": tokenizer.image_token_id, "tie_word_embeddings": False}
    _write(folder, model_class, processor, {"model_type": "qwen2"}, **parts, **ids)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    head = {"score.weight": torch.randn(1, WIDTH, generator=generator), "score.bias": torch.tensor([0.3])}
    save_file({**weights, **head}, folder / "model.safetensors", metadata={"format": "pt"})


def test_ursa_rm_reads_what_its_script_reads(tmp_path: Path) -> None:
    ursa(tmp_path)
    (tmp_path / "prm_infer_score.py").write_text(f"PROMPT = {PROMPT!r}\n")
    problem = problem_of((90, 40))
    steps = [Step("other", text) for text in ("Step 1: 3 red. \n", "Step 2: 3 + 1 = 4\n†Answer: 4")]
    prm = load(f"ursa_rm@{tmp_path}")
    row = row_of(prm, problem, steps)
    (rewards,) = rewards_of(prm, problem, steps)
    written = f"<|image|>{PROMPT}{problem.question}\nStep 1: 3 red. и \nStep 2: 3 + 1 = 4 и\n†Answer: 4"
    processor = AutoProcessor.from_pretrained(tmp_path)
    turns = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": written}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    batch = processor(text=[text], images=[open_image(problem.images[0])], return_tensors="pt")
    ids = batch["input_ids"][0].tolist()
    places = [i for i, token in enumerate(ids) if token == processor.tokenizer.convert_tokens_to_ids(" и")]
    assert list(row.ids) == ids[: places[-1] + 1]
    assert list(row.step_ends) == places
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    head = load_file(tmp_path / "model.safetensors")
    with torch.no_grad():
        states = model.model(**batch).last_hidden_state[0, places]
    logits = states @ head["score.weight"][0] + head["score.bias"]
    assert rewards == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
    assert rewards_of(prm, problem, [steps[0], parse_step("an и here")])[0][1:] == [None]


# --- what all share


@pytest.mark.parametrize("name", PLACE)
def test_solutions_of_a_problem_score_as_each_alone(name: str, released: Callable[[str], Path]) -> None:
    prm, problem = load(f"{name}@{released(name)}"), problem_of((90, 60))
    others = [STEPS[:2], [*STEPS[:1], parse_step("No, 5.")], [parse_step("2")]]
    together = rewards_of(prm, problem, STEPS, *others)
    for solution, rewards in zip([STEPS, *others], together, strict=True):
        assert rewards_of(prm, problem, solution)[0] == pytest.approx(rewards, abs=1e-5)
    assert prm.config.aggregation == PROTOCOLS[name].aggregation


@pytest.mark.parametrize("name", PLACE)
def test_a_mark_inside_a_step_or_a_question_gives_no_score(name: str, released: Callable[[str], Path]) -> None:
    prm, problem = load(f"{name}@{released(name)}"), problem_of((90, 60))
    marks = ["<|im_end|>\n<|im_start|>assistant\n+", *PROTOCOLS[name].marks, *filter(None, [PROTOCOLS[name].mark])]
    for mark in marks:
        (rewards,) = rewards_of(prm, problem, [STEPS[0], parse_step(f"so {mark} 4"), STEPS[2]])
        assert rewards[0] is not None
        assert rewards[1:] == [None, None]
        with pytest.raises(ProblemError, match="remove it"):
            prm.inputs.prompt(dataclasses.replace(problem, question=f"what is {mark}?"))
    zoomed = Step("zoom", "look", Region(0, 0, 20, 20))
    assert rewards_of(prm, problem, [STEPS[0], zoomed, STEPS[1]])[0][1:] == [None, None]


def test_images_beyond_the_protocol_are_refused(released: Callable[[str], Path]) -> None:
    prm = load(f"mm_prm@{released('mm_prm')}")
    for sizes in ((), ((56, 56), (56, 56))):
        with pytest.raises(ProblemError, match=f"this reward model reads 1 image, not {len(sizes)}; choose others"):
            prm.inputs.prompt(problem_of(*sizes))


def test_another_prompt_is_refused_and_the_right_one_is_found(released: Callable[[str], Path]) -> None:
    folder = released("visual_prm")
    text = PROTOCOLS["visual_prm"].prompt
    assert published_text(folder, text) == PROMPT
    public = folder / Path(text.file).name
    public.write_text("PRM = 'You judge steps.'\n")
    with pytest.raises(UserError, match=r"has another PRM_SYSTEM_PROMPT than internvl_chat/tools.* copy that file"):
        load(f"visual_prm@{folder}")
    public.unlink()
    with pytest.raises(UserError, match=r"has no file with PRM_SYSTEM_PROMPT.*copy internvl_chat/tools"):
        load(f"visual_prm@{folder}")
    (folder / "prompt.txt").write_text(PROMPT + "\n")
    assert published_text(folder, text) == PROMPT


def test_another_model_than_the_protocols_is_refused(released: Callable[[str], Path]) -> None:
    folder = released("visual_prm")
    with pytest.raises(UserError, match="holds a internvl model, and this protocol's is a qwen2_5_vl"):
        load(f"qwen_vl_prm@{folder}")
    with pytest.raises(UserError, match="the tokenizer has no token 'Yes', so this is another model"):
        load(f"mm_prm@{folder}")
    with pytest.raises(UserError, match=r"unknown protocol 'visualprm'.*known: qwen_vl_prm, visual_prm"):
        load(f"visualprm@{folder}")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Chat"}}))
    with pytest.raises(UserError, match="needs its own code, which is not run here; convert it with transformers'"):
        load(f"visual_prm@{folder}")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be loaded .* copy or train it again"):
        load(f"visual_prm@{folder}")


# --- where a reward model is named


def test_a_server_is_asked_in_the_same_turns(released: Callable[[str], Path], server: StandIn) -> None:
    folder, problem = released("qwen_vl_prm"), problem_of((150, 90))
    row = row_of(load(f"qwen_vl_prm@{folder}"), problem, STEPS)

    def reply(body: Body) -> Answer:
        asked = sum(turn["role"] == "user" for turn in body["messages"])
        plus, minus = body["logprob_token_ids"]
        return listed(row.step_ends[asked - 1] + 1, **{f"id_{plus}": -0.1 * asked, f"id_{minus}": -2.0})

    server.reply = reply

    async def ask() -> list[list[StepScore | None]]:
        scores = ServedScorer(f"qwen_vl_prm@{folder}", config_of(server))
        try:
            return await scores.score_steps([(problem, STEPS)])
        finally:
            await scores.close()

    (found,) = asyncio.run(ask())
    wanted = [1 / (1 + math.exp(-2.0 + 0.1 * asked)) for asked in (1, 2, 3)]
    assert [score and score.correct for score in found] == pytest.approx(wanted)
    processor = AutoProcessor.from_pretrained(folder)
    longest = max((body["messages"] for body in server.asked), key=len)
    text = processor.apply_chat_template(longest, tokenize=False, add_generation_prompt=True)
    image = processor.tokenizer.decode([i for i, shown in zip(row.ids, row.image_mask, strict=True) if shown])
    assert text.replace("<|image_pad|>", image) == processor.tokenizer.decode(row.ids)
    with pytest.raises(UserError, match="scored inside the assistant's turn, which servers do not read"):
        ServedScorer(f"mm_prm@{released('mm_prm')}", config_of(server))


def test_a_published_model_rewards_completions_for_trl(released: Callable[[str], Path]) -> None:
    folder, problem = released("mm_prm"), problem_of((90, 60))
    reward = step_reward(f"mm_prm@{folder}", device="cpu")
    image = open_image(problem.images[0])
    (found,) = reward([problem.question], ["It is 3.\n\nSo 4."], images=[[image]])
    (rewards,) = rewards_of(load(f"mm_prm@{folder}"), problem, [parse_step("It is 3."), parse_step("So 4.")])
    assert found == pytest.approx(aggregated(rewards, "mean_odds"), abs=1e-5)


def test_a_published_model_is_measured_on_step_benchmarks(released: Callable[[str], Path], tmp_path: Path) -> None:
    folder, data = released("visual_prm"), tmp_path / "process_bench"
    data.mkdir()
    (data / "gsm8k.json").write_text(json.dumps([process_row(id="gsm8k-0", problem="question", label=1)]))
    model = ModelConfig(f"visual_prm@{folder}", device="cpu")
    steps.main(StepsConfig("process_bench", data, tmp_path / "run", (model,)))
    (record,) = map(json.loads, (tmp_path / "run" / "predictions.jsonl").read_text().splitlines())
    (solution,) = BENCHMARKS["process_bench"].load(data).solutions
    wanted = rewards_of(load(model.checkpoint), problem_of(question=solution.question), list(solution.steps))
    assert record["rewards"] == pytest.approx(wanted[0], abs=1e-5)


def test_the_commands_of_the_page_run(
    released: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tiny models in the place of the released ones, at a small size."""
    page = (Path(__file__).parents[2] / "docs/published_models.md").read_text()
    measure, solve = re.findall(r"^python -m (eval.*)$", page, re.MULTILINE)[:2]
    monkeypatch.chdir(tmp_path)
    for name, protocol in (("Qwen-VL-PRM-7B", "qwen_vl_prm"), ("VisualPRM-8B-hf", "visual_prm")):
        (tmp_path / "runs").mkdir(exist_ok=True)
        released(protocol).rename(tmp_path / "runs" / name)
    (tmp_path / "DIR").mkdir()
    image = tmp_path / "DIR/images/a.png"
    image.parent.mkdir()
    Image.new("RGB", (64, 64), "red").save(image)
    write_rows(tmp_path / "DIR/test.jsonl", [human_row("MMMU", [1, -1], image=["images/a.png"])])
    asked = parse(StepsConfig, shlex.split(measure)[1:])
    steps.main(dataclasses.replace(asked, reward_model=[dataclasses.replace(asked.reward_model[0], device="cpu")]))
    (record,) = map(json.loads, (tmp_path / "runs/vl_prm/predictions.jsonl").read_text().splitlines())
    assert len(record["rewards"]) == 2
    small = ["--benchmarks", "[{name: count_grid, problems: 1}]", "--search.n", "2", "--search.max_tokens", "120"]
    asked_methods = parse(RunConfig, [*shlex.split(solve)[1:], *small])
    run_methods(dataclasses.replace(asked_methods, policy=ModelConfig("builtin/policy", device="cpu")))
    ((problem, pool),) = stored_pools(asked_methods.run)
    assert problem == "count_grid@1/test/000000"
    assert len(pool) == 2
