"""Checkpoint folders of tiny random backbones, one for each family: the real classes, templates and special tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, processors

from vlprm.builtin.make import SPECIAL, make_processor, make_tokenizer
from vlprm.model.checkpoint_config import CheckpointConfig
from vlprm.zoom.policy import ZoomPolicy

DECLARED = Path(__file__).parent.parent / "docs/examples/llava"
VOCABULARY = 420
WIDTH, HEAD = 64, 32
SIDE, PATCH = 56, 14  # pixels of a tile and of a patch: 16 patches, which are pooled to 4 tokens
TILE_TOKENS = 4
SQUARE = {"height": SIDE, "width": SIDE}
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": WIDTH // HEAD,
    "num_key_value_heads": 1,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
}
TOWER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TILED_TOWER: dict[str, Any] = {**TOWER, "image_size": SIDE, "patch_size": PATCH}
SIGLIP = {"model_type": "siglip_vision_model", **TILED_TOWER, "vision_use_head": False}


# --- chat templates


def _template(head: str, image: str, end: str, ask: str, lead: str = "", text: str = "part.text", **more: str) -> str:
    """A chat template: `head` opens a turn, `end` closes it, `ask` opens the turn to generate. String content counts as
    a text part; the real templates of LLaVA-OneVision and PerceptionLM leave it out."""
    order, around = more.get("order", "content"), more.get("around", "%s")
    parts = (
        f"{{% for part in {order} %}}{{% if 'image' in part.type %}}{{{{ '{image}' }}}}"
        f"{{% else %}}{{{{ {text} }}}}{{% endif %}}{{% endfor %}}"
    )
    return (
        f"{lead}{{% for message in messages %}}{head}"
        "{% if message.content is string %}{% set content = [{'type': 'text', 'text': message.content}] %}"
        "{% else %}{% set content = message.content %}{% endif %}"
        f"{around % parts}{{{{ '{end}' }}}}{{% endfor %}}{{% if add_generation_prompt %}}{ask}{{% endif %}}"
    )


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGES_FIRST = "content | sort(attribute='type')"
CHATML_HEAD, CHATML_ASK = "{{ '<|im_start|>' + message.role + '\n' }}", "{{ '<|im_start|>assistant\n' }}"
NO_THOUGHT = "{{ '<think>\n\n</think>\n\n' }}"
SYSTEM = "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
QWEN2_HEAD = f"{{% if loop.first and message.role != 'system' %}}{SYSTEM}{{% endif %}}{CHATML_HEAD}"
QWEN2_TEMPLATE = _template(QWEN2_HEAD, QWEN_IMAGE, "<|im_end|>\n", CHATML_ASK)
QWEN3_5_TEMPLATE = _template(
    CHATML_HEAD + "{% if message.role == 'assistant' and not"
    f" messages[loop.index0:] | selectattr('role', 'equalto', 'user') | list %}}{NO_THOUGHT}{{% endif %}}",
    QWEN_IMAGE,
    "<|im_end|>\n",
    CHATML_ASK + f"{{% if enable_thinking is defined and enable_thinking is false %}}{NO_THOUGHT}"
    "{% else %}{{ '<think>\n' }}{% endif %}",
    around="{%% filter trim %%}%s{%% endfilter %%}",
)
# How Qwen3-VL's template renders tools and their responses.
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n# Tools\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{% endif %}{% for message in messages %}{% set tool = message.role == 'tool' %}"
    "{{ '<|im_start|>' + ('user' if tool else message.role) + '\n' }}{% if tool %}{{ '<tool_response>\n' }}{% endif %}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if 'image' in part.type %}" + QWEN_IMAGE + "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% if tool %}{{ '\n</tool_response>' }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL_TEMPLATE = _template(CHATML_HEAD, "<IMG_CONTEXT>\n", "<|im_end|>\n", CHATML_ASK)
GEMMA3_TEMPLATE = _template(
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}",
    "<start_of_image>",
    "<end_of_turn>\n",
    "{{ '<start_of_turn>model\n' }}",
    lead="{{ bos_token }}",
    text="part.text | trim",
)
# Like the real one, the generation prompt lacks a space that written turns have: 'assistant \n'.
LLAVA_HEAD = "{{ '<|im_start|>' + message.role + ' ' }}"
LLAVA_TEMPLATE = _template(LLAVA_HEAD, "<image>", "<|im_end|>", CHATML_ASK, text="'\n' + part.text", order=IMAGES_FIRST)
PERCEPTION_TEMPLATE = _template(
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}",
    "<|image|>",
    "<|eot_id|>",
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    lead="{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision"
    " assistant. You are able to understand the visual content that the user provides, and assist the user with a"
    " variety of tasks using natural language.<|eot_id|>' }}",
    text="part.text | trim",
    order=IMAGES_FIRST,
)


# --- tokenizers and folders


def _with_tokens(tokenizer: Any, **named: str) -> Any:
    """The tokenizer with the special tokens that processors look up by name."""
    tokenizer.add_special_tokens({"extra_special_tokens": list(named.values())})
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    return tokenizer


def _renamed(texts: list[str], names: str, bos: str, **special: str) -> Any:
    """A tokenizer with other names for its control tokens, which prepends `bos` to a text by itself."""
    text = make_tokenizer(texts, VOCABULARY).backend_tokenizer.to_str()
    for old, new in zip(SPECIAL, names.split(), strict=True):
        text = text.replace(json.dumps(old), json.dumps(new))
    backend = Tokenizer.from_str(text)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    special |= {"bos_token": bos}
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)


def _write(folder: Path, model_class: Any, processor: Any, text: dict[str, Any], **config: Any) -> None:
    """Writes a random model of the class with these parts of its config, the processor and vlprm.json."""
    tokenizer, end_of_turn = processor.tokenizer, config.pop("end_of_turn", "<|im_end|>")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config["text_config"] = {**TEXT, "vocab_size": len(tokenizer), **ids, **text}
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**config))
    for name, parameter in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):  # Gemma 3's projection starts as zeros, which ignore images
            torch.nn.init.normal_(parameter, std=0.02)
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(end_of_turn)}
    model.generation_config.eos_token_id = sorted(ends)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    CheckpointConfig().save(folder)


# --- Qwen

QWEN_TOWER: dict[str, Any] = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64}
QWEN_TOWER["out_hidden_size"] = WIDTH
QWEN3_TOWER = {**QWEN_TOWER, "patch_size": 16, "num_position_embeddings": 64}


def write_qwen(folder: Path, model_class: Any, processor: Any, text: dict[str, Any], vision: dict[str, Any]) -> None:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    id_of = processor.tokenizer.convert_tokens_to_ids
    ids = {f"{name}_token_id": id_of(f"<|{token}|>") for name, token in names.items()}
    _write(folder, model_class, processor, text, vision_config=vision, **ids)


def mrope(*section: int, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(section), **more}


QWEN2_TEXT = {"rope_parameters": mrope(4, 6, 6)}


# The real tokenizers split text in this way: line breaks after a punctuation mark belong to its piece.
QWEN_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def joining_tokenizer(texts: list[str]) -> Any:
    """Like Qwen's, it has one id for a full stop with the line breaks after it, and one for three line breaks."""
    tokenizer = make_tokenizer([*texts, "\n\n" * 99], VOCABULARY - 2)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": QWEN_PIECES}
    for i, (left, right) in enumerate([(".", "ĊĊ"), ("ĊĊ", "Ċ")]):
        backend["model"]["vocab"][left + right] = len(tokenizer) + i
        backend["model"]["merges"].append([left, right])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        clean_up_tokenization_spaces=False,
    )


def qwen2_processor(processor_class: Any, texts: list[str]) -> Any:
    tokenizer = joining_tokenizer(texts)
    images = make_processor(tokenizer, PATCH).image_processor
    videos = hf.Qwen2VLVideoProcessor(patch_size=PATCH, temporal_patch_size=2, merge_size=2)
    return processor_class(images, tokenizer, videos, chat_template=QWEN2_TEMPLATE)


def qwen2_vl(folder: Path, texts: list[str]) -> None:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH}
    processor = qwen2_processor(hf.Qwen2VLProcessor, texts)
    write_qwen(folder, hf.Qwen2VLForConditionalGeneration, processor, QWEN2_TEXT, vision)


def qwen2_5_vl(folder: Path, texts: list[str]) -> None:
    vision = {**QWEN_TOWER, "patch_size": PATCH, "window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
    processor = qwen2_processor(hf.Qwen2_5_VLProcessor, texts)
    write_qwen(folder, hf.Qwen2_5_VLForConditionalGeneration, processor, QWEN2_TEXT, vision)


def qwen3_vl(folder: Path, texts: list[str]) -> None:
    text = {"head_dim": HEAD, "rope_parameters": mrope(6, 5, 5, mrope_interleaved=True)}
    vision = {**QWEN3_TOWER, "deepstack_visual_indexes": [0]}
    processor = make_processor(make_tokenizer(texts, VOCABULARY))
    write_qwen(folder, hf.Qwen3VLForConditionalGeneration, processor, text, vision)


def qwen3_vl_with_tools(folder: Path, texts: list[str]) -> None:
    """Like `qwen3_vl`, but it zooms by Qwen's own tool calls."""
    tokenizer = joining_tokenizer(texts)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    processor = make_processor(tokenizer)
    processor.chat_template = TOOL_TEMPLATE
    text = {"head_dim": HEAD, "rope_parameters": mrope(6, 5, 5, mrope_interleaved=True)}
    vision = {**QWEN3_TOWER, "deepstack_visual_indexes": [0]}
    write_qwen(folder, hf.Qwen3VLForConditionalGeneration, processor, text, vision)
    CheckpointConfig(zoom=ZoomPolicy(form="qwen_tool", on_refusal="tell")).save(folder)


def qwen3_5(folder: Path, texts: list[str]) -> None:
    """One layer of linear attention, then one of full attention. Loading gives a tokenizer of its own class: it has
    this vocabulary, but splits words as Qwen does, and normalizes to NFC."""
    tokenizer = make_tokenizer(texts, VOCABULARY)
    tokenizer.add_tokens(["<think>", "</think>"])
    processor = make_processor(tokenizer)
    processor.chat_template = QWEN3_5_TEMPLATE
    rope = mrope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.25)
    text = {"head_dim": HEAD, "rope_parameters": rope, "layer_types": ["linear_attention", "full_attention"]}
    sizes = {"key_head_dim": 16, "value_head_dim": 16, "num_key_heads": 2, "num_value_heads": 4}
    text |= {f"linear_{name}": size for name, size in sizes.items()}
    write_qwen(folder, hf.Qwen3_5ForConditionalGeneration, processor, text, QWEN3_TOWER)


def internvl(folder: Path, texts: list[str]) -> None:
    """Up to two tiles per image, and its thumbnail."""
    tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = _with_tokens(make_tokenizer(texts, VOCABULARY), video_token="<video>", **tokens)
    images, videos = hf.GotOcr2ImageProcessor(size=SQUARE, max_patches=2), hf.InternVLVideoProcessor(size=SQUARE)
    processor = hf.InternVLProcessor(images, tokenizer, videos, TILE_TOKENS, chat_template=INTERNVL_TEMPLATE)
    _write(
        folder,
        hf.InternVLForConditionalGeneration,
        processor,
        {"model_type": "qwen2"},
        vision_config=TILED_TOWER,
        image_token_id=processor.image_token_id,
        image_seq_length=TILE_TOKENS,
        tie_word_embeddings=False,
    )


def gemma3(folder: Path, texts: list[str]) -> None:
    """The window of the first layer is shorter than a prompt, as it is shorter than a long prompt in the real models.
    Its `eos_token` ends a text, not a turn."""
    names = "<pad> <start_of_turn> <end_of_turn> <start_of_image> <end_of_image> <image_soft_token> <bos>"
    tokenizer = _renamed(texts, names, bos="<bos>", eos_token="<eos>", pad_token="<pad>")
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = _with_tokens(tokenizer, **named)
    images = hf.Gemma3ImageProcessor(size=SQUARE)
    processor = hf.Gemma3Processor(images, tokenizer, GEMMA3_TEMPLATE, image_seq_length=TILE_TOKENS)
    layers = ["sliding_attention", "full_attention"]
    _write(
        folder,
        hf.Gemma3ForConditionalGeneration,
        processor,
        {"head_dim": HEAD, "query_pre_attn_scalar": HEAD, "sliding_window": 32, "layer_types": layers},
        end_of_turn="<end_of_turn>",
        vision_config=SIGLIP,
        mm_tokens_per_image=TILE_TOKENS,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )


def llava_onevision(folder: Path, texts: list[str]) -> None:
    """One to four tiles of a single image and its thumbnail; only the thumbnails of several images. No pooling."""
    tokenizer = _with_tokens(make_tokenizer(texts, VOCABULARY), image_token="<image>", video_token="<video>")
    pinpoints = [[SIDE * h, SIDE * w] for h in (1, 2) for w in (1, 2)]
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=pinpoints),
        tokenizer,
        hf.LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=TILE_TOKENS,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )
    _write(
        folder,
        hf.LlavaOnevisionForConditionalGeneration,
        processor,
        {"model_type": "qwen2"},
        vision_config={**SIGLIP, "patch_size": 2 * PATCH},
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=pinpoints,
    )


def perception_lm(folder: Path, texts: list[str]) -> None:
    """Up to two tiles per image, and its thumbnail. Needs timm."""
    headers = "<|end_of_text|> <|start_header_id|> <|eot_id|> <|begin_of_text|> <|end_header_id|>"
    names, bos = f"{headers} <|image|> <|video|>", "<|begin_of_text|>"
    tokenizer = _renamed(texts, names, bos=bos, eos_token="<|eot_id|>", pad_token="<|end_of_text|>")
    processor = hf.PerceptionLMProcessor(
        image_processor=hf.PerceptionLMImageProcessor(tile_size=SIDE, max_num_tiles=2, size=SQUARE),
        video_processor=hf.PerceptionLMVideoProcessor(size=SQUARE),
        tokenizer=_with_tokens(tokenizer, image_token="<|image|>", video_token="<|video|>"),
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=PERCEPTION_TEMPLATE,
    )
    vision = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": [SIDE, SIDE], "ref_feat_shape": [4, 4]}
    vision |= {"global_pool": "", "use_post_transformer_norm": False, "init_values": 0.1}
    timm = {"model_type": "timm_wrapper", "architecture": "vit_pe_core_large_patch14_336", "do_pooling": False}
    _write(
        folder,
        hf.PerceptionLMForConditionalGeneration,
        processor,
        {"model_type": "llama"},
        end_of_turn="<|eot_id|>",
        vision_config={**timm, "model_args": vision},
        projector_pooling_ratio=2,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )


def llava(folder: Path, texts: list[str]) -> None:
    """Images are resized to one size. FAMILIES does not have this family: the example of docs/add_a_backbone.md
    declares it."""
    processor = hf.LlavaProcessor(
        hf.SiglipImageProcessor(size=SQUARE),
        _with_tokens(make_tokenizer(texts, VOCABULARY), image_token="<image>"),
        patch_size=2 * PATCH,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_TEMPLATE,
    )
    _write(
        folder,
        hf.LlavaForConditionalGeneration,
        processor,
        {"model_type": "qwen2"},
        vision_config={**SIGLIP, "patch_size": 2 * PATCH},
        vision_feature_select_strategy="full",
        image_token_index=processor.image_token_id,
    )
    shutil.copy(DECLARED / "vlprm.json", folder)


BACKBONES: dict[str, Callable[[Path, list[str]], None]] = {
    make.__name__: make
    for make in (qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5, internvl, gemma3, llava_onevision, perception_lm)
}
OUTSIDE = {llava.__name__: llava}
