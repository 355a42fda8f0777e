#!/usr/bin/env python3
"""Writes the small models of Tests/LlamaEngineTests/Models: one GGUF file per way of keeping KV.

    python3 -m venv /tmp/models && /tmp/models/bin/pip install gguf==0.19.0 numpy==2.4.6
    /tmp/models/bin/python Scripts/make-test-models.py [NAME ...]

Weights are seeded noise: the text is nonsense, but shapes, attention and KV are those of the real
architectures. Attention is made sharp and logits far apart, so that KV that is wrong or missing
changes the output. Weights are f16: with quantised ones, activations are rounded so coarsely that
the order of additions shows. Files of models that are refused before their weights are read have
none.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "Tests" / "LlamaEngineTests" / "Models"
WIDTH = 64
HEAD = 32
FEED_FORWARD = 64
CONTEXT = 4096
SPECIAL = ["<|endoftext|>", "<|im_end|>"]


def byte_tokens():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(others))]


TOKENS = SPECIAL + byte_tokens() + ["th", "in", "er"]
TOKENS += [f"[unused {index}]" for index in range(-len(TOKENS) % 32)]


class Model:
    """A file being written, and the noise for its weights."""

    def __init__(self, name, architecture, layers, heads=4, **numbers):
        self.writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", architecture)
        self.noise = np.random.Generator(np.random.PCG64(sum(name.encode()) * 7919))
        self.layers = layers
        self.writer.add_name(f"{name} (random weights, for tests)")
        self.writer.add_context_length(numbers.pop("context", CONTEXT))
        self.writer.add_embedding_length(WIDTH)
        self.writer.add_block_count(layers)
        self.writer.add_head_count(heads)
        self.writer.add_feed_forward_length(numbers.pop("feed_forward", FEED_FORWARD))
        self.writer.add_layer_norm_rms_eps(1e-5)
        self.writer.add_layer_norm_eps(1e-5)
        for key, value in numbers.items():
            getattr(self.writer, f"add_{key}")(value)
        self.add_vocabulary()

    def add_vocabulary(self):
        types = gguf.TokenType
        self.writer.add_tokenizer_model("gpt2")
        self.writer.add_tokenizer_pre("gpt-2")
        self.writer.add_token_list(TOKENS)
        self.writer.add_token_types([
            types.CONTROL if token in SPECIAL
            else types.UNUSED if token.startswith("[unused") else types.NORMAL
            for token in TOKENS])
        self.writer.add_token_merges(["t h", "i n", "e r"])
        self.writer.add_bos_token_id(0)
        self.writer.add_eos_token_id(1)
        self.writer.add_add_bos_token(False)

    def matrix(self, name, *shape, scale=1.0):
        """Noise of the shape (…, outputs, inputs), scaled by the inputs."""
        values = self.noise.standard_normal(shape, dtype=np.float32)
        values *= np.float32(scale / np.sqrt(shape[-1]))
        self.writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def vector(self, name, length, value=1.0, spread=0.0):
        values = value + spread * self.noise.standard_normal(length, dtype=np.float32)
        self.writer.add_tensor(name, np.asarray(values, np.float32))

    def norm(self, name, length=WIDTH, value=1.0):
        self.vector(f"{name}.weight", length, value)

    def embedding(self, scale=1.0):
        self.matrix("token_embd", len(TOKENS), WIDTH, scale=scale * np.sqrt(WIDTH))
        self.norm("output_norm")

    def output(self):
        self.matrix("output", len(TOKENS), WIDTH, scale=4)

    def attention(self, layer, heads, kv_heads, key=HEAD, value=HEAD):
        block = f"blk.{layer}"
        self.norm(f"{block}.attn_norm")
        self.matrix(f"{block}.attn_q", heads * key, WIDTH, scale=1.6)
        self.matrix(f"{block}.attn_k", kv_heads * key, WIDTH, scale=1.6)
        self.matrix(f"{block}.attn_v", kv_heads * value, WIDTH)
        self.matrix(f"{block}.attn_output", WIDTH, heads * value)

    def feed_forward(self, layer, norm=True):
        block = f"blk.{layer}"
        if norm:
            self.norm(f"{block}.ffn_norm")
        self.matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        self.matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        self.matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)

    def save(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def llama(name, kv_heads):
    """Plain attention; as many KV heads as heads, or one for all."""
    model = Model(
        name, "llama", layers=3, head_count_kv=kv_heads, key_length=HEAD, value_length=HEAD,
        rope_dimension_count=HEAD)
    model.embedding()
    model.output()
    for layer in range(model.layers):
        model.attention(layer, 4, kv_heads)
        model.feed_forward(layer)
    return model


def gemma3(name):
    """Three of four layers see 32 tokens; keys and queries are normalised."""
    model = Model(
        name, "gemma3", layers=4, head_count_kv=2, key_length=HEAD, value_length=HEAD,
        sliding_window=32, sliding_window_pattern=[True, True, False, True])
    model.embedding(scale=0.1)
    model.output()
    for layer in range(model.layers):
        block = f"blk.{layer}"
        model.attention(layer, 4, 2)
        model.norm(f"{block}.attn_q_norm", HEAD, 1.5)
        model.norm(f"{block}.attn_k_norm", HEAD, 1.5)
        model.norm(f"{block}.post_attention_norm")
        model.feed_forward(layer)
        model.norm(f"{block}.post_ffw_norm")
    return model


def gpt_oss(name):
    """Every other layer sees 32 tokens; attention sinks, experts."""
    experts, width = 2, 32
    model = Model(
        name, "gpt-oss", layers=3, head_count_kv=2, key_length=HEAD, value_length=HEAD,
        rope_dimension_count=HEAD, sliding_window=32, expert_count=experts, expert_used_count=1,
        expert_feed_forward_length=width)
    model.embedding()
    model.output()
    for layer in range(model.layers):
        block = f"blk.{layer}"
        model.attention(layer, 4, 2)
        model.vector(f"{block}.attn_output.bias", WIDTH, 0, 0.1)
        model.vector(f"{block}.attn_sinks.weight", 4, 0, 1)
        model.norm(f"{block}.post_attention_norm")
        model.matrix(f"{block}.ffn_gate_inp", experts, WIDTH)
        model.vector(f"{block}.ffn_gate_inp.bias", experts, 0, 0.1)
        for part, shape in [
            ("gate", (experts, width, WIDTH)), ("up", (experts, width, WIDTH)),
            ("down", (experts, WIDTH, width)),
        ]:
            model.matrix(f"{block}.ffn_{part}_exps", *shape)
            bias = model.noise.standard_normal(shape[:2], dtype=np.float32) * np.float32(0.1)
            model.writer.add_tensor(f"{block}.ffn_{part}_exps.bias", bias)
    return model


def llama4(name):
    """Three of four layers see the tokens since the last multiple of 8192."""
    model = Model(
        name, "llama4", layers=4, heads=2, context=16384, head_count_kv=1, key_length=HEAD,
        value_length=HEAD, rope_dimension_count=HEAD, sliding_window=8192, expert_count=16,
        expert_used_count=1, expert_feed_forward_length=FEED_FORWARD, interleave_moe_layer_step=16)
    model.embedding()
    model.output()
    for layer in range(model.layers):
        model.attention(layer, 2, 1)
        model.feed_forward(layer)
    return model


def deci(name):
    """Layers with two KV heads, with none at all, with one."""
    kv_heads = [2, 0, 1]
    model = Model(
        name, "deci", layers=3, heads=[4 if count else 0 for count in kv_heads],
        feed_forward=[FEED_FORWARD] * 3, head_count_kv=kv_heads, key_length=HEAD,
        value_length=HEAD, rope_dimension_count=HEAD)
    model.embedding()
    model.output()
    for layer, count in enumerate(kv_heads):
        if count:
            model.attention(layer, 4, count)
        model.feed_forward(layer)
    return model


def mimo2(name):
    """Keys wider than values, KV heads that differ per layer, and a window."""
    kv_heads = [2, 1, 2]
    model = Model(
        name, "mimo2", layers=3, head_count_kv=kv_heads, key_length=2 * HEAD, value_length=HEAD,
        rope_dimension_count=HEAD, sliding_window=32,
        sliding_window_pattern=[False, True, True], expert_feed_forward_length=FEED_FORWARD)
    model.embedding()
    model.output()
    for layer, count in enumerate(kv_heads):
        model.attention(layer, 4, count, key=2 * HEAD)
        model.feed_forward(layer)
    return model


def deepseek2(name):
    """Multi-head latent attention: one compressed row of keys, which contains the values."""
    heads, rank, rope, plain, value = 4, 32, 32, 16, 16
    model = Model(
        name, "deepseek2", layers=3, head_count_kv=1, key_length=rank + rope, value_length=rank,
        key_length_mla=plain + rope, value_length_mla=value, q_lora_rank=rank, kv_lora_rank=rank,
        rope_dimension_count=rope, leading_dense_block_count=3, expert_shared_count=0,
        expert_feed_forward_length=FEED_FORWARD)
    model.embedding()
    model.output()
    for layer in range(model.layers):
        block = f"blk.{layer}"
        model.norm(f"{block}.attn_norm")
        model.norm(f"{block}.attn_q_a_norm", rank)
        model.norm(f"{block}.attn_kv_a_norm", rank)
        model.matrix(f"{block}.attn_q_a", rank, WIDTH)
        model.matrix(f"{block}.attn_q_b", heads * (plain + rope), rank, scale=2)
        model.matrix(f"{block}.attn_kv_a_mqa", rank + rope, WIDTH, scale=2)
        model.matrix(f"{block}.attn_k_b", heads, rank, plain)
        model.matrix(f"{block}.attn_v_b", heads, value, rank)
        model.matrix(f"{block}.attn_output", WIDTH, heads * value)
        model.feed_forward(layer)
    return model


def qwen2vl(name):
    """Positions in several dimensions: longer cells in libllama's states."""
    model = Model(
        name, "qwen2vl", layers=3, heads=2, head_count_kv=1, rope_dimension_sections=[4, 6, 6, 0])
    model.embedding()
    model.output()
    for layer in range(model.layers):
        model.attention(layer, 2, 1)
        model.feed_forward(layer)
    return model


def phi3(name):
    """Other factors for positions in contexts of more than 512 tokens."""
    model = Model(
        name, "phi3", layers=2, heads=2, head_count_kv=2, rope_dimension_count=HEAD,
        rope_scaling_orig_ctx_len=512)
    model.embedding()
    model.output()
    model.vector("rope_factors_short.weight", HEAD // 2, 1)
    model.vector("rope_factors_long.weight", HEAD // 2, 2)
    for layer in range(model.layers):
        block = f"blk.{layer}"
        model.attention(layer, 2, 2)
        model.norm(f"{block}.ffn_norm")
        model.matrix(f"{block}.ffn_up", 2 * FEED_FORWARD, WIDTH)
        model.matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    return model


def mamba(name):
    """A state of fixed size instead of KV."""
    inner, state, rank, kernel = 2 * WIDTH, 8, 4, 4
    model = Model(
        name, "mamba", layers=2, heads=0, feed_forward=0, ssm_conv_kernel=kernel,
        ssm_inner_size=inner, ssm_state_size=state, ssm_time_step_rank=rank)
    model.embedding()
    for layer in range(model.layers):
        block = f"blk.{layer}"
        model.norm(f"{block}.attn_norm")
        model.matrix(f"{block}.ssm_in", 2 * inner, WIDTH)
        taps = model.noise.standard_normal((inner, kernel), dtype=np.float32)
        model.writer.add_tensor(f"{block}.ssm_conv1d.weight", taps)
        model.vector(f"{block}.ssm_conv1d.bias", inner, 0, 0.1)
        model.matrix(f"{block}.ssm_x", rank + 2 * state, inner)
        model.matrix(f"{block}.ssm_dt", inner, rank)
        model.vector(f"{block}.ssm_dt.bias", inner, 0, 0.1)
        model.vector(f"{block}.ssm_a", (inner, state), -1, 0.1)
        model.vector(f"{block}.ssm_d", inner)
        model.matrix(f"{block}.ssm_out", WIDTH, inner)
    return model


def lfm2(name):
    """One layer of convolutions, whose state isn't KV, and one of attention."""
    kv_heads = [0, 2]
    model = Model(
        name, "lfm2", layers=2, heads=2, head_count_kv=kv_heads, shortconv_l_cache=3)
    model.matrix("token_embd", len(TOKENS), WIDTH, scale=8)
    model.norm("token_embd_norm")
    for layer, count in enumerate(kv_heads):
        block = f"blk.{layer}"
        if count:
            model.attention(layer, 2, count)
            model.norm(f"{block}.attn_q_norm", HEAD)
            model.norm(f"{block}.attn_k_norm", HEAD)
        else:
            model.norm(f"{block}.attn_norm")
            taps = model.noise.standard_normal((WIDTH, 3), dtype=np.float32)
            model.writer.add_tensor(f"{block}.shortconv.conv.weight", taps)
            model.matrix(f"{block}.shortconv.in_proj", 3 * WIDTH, WIDTH)
            model.matrix(f"{block}.shortconv.out_proj", WIDTH, WIDTH)
        model.feed_forward(layer)
    return model


def without_weights(architecture, **numbers):
    return lambda name: Model(name, architecture, layers=2, **numbers)


MODELS = {
    "every-head": lambda name: llama(name, 4),
    "one-head": lambda name: llama(name, 1),
    "window": gemma3,
    "window-sinks": gpt_oss,
    "window-chunks": llama4,
    "window-widths": mimo2,
    "widths": deci,
    "latent": deepseek2,
    "dimensions": qwen2vl,
    "long-rope": phi3,
    "recurrent": mamba,
    "hybrid": lfm2,
    "refused-rwkv7": without_weights("rwkv7"),
    "refused-jamba": without_weights("jamba"),
    "refused-falcon-h1": without_weights("falcon-h1"),
    "refused-qwen3next": without_weights("qwen3next"),
    "refused-t5": without_weights("t5"),
    "refused-t5encoder": without_weights("t5encoder"),
    "refused-dream": without_weights("dream"),
    "refused-bert": without_weights("bert", causal_attention=False),
}


def main(names):
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(MODELS)}")
    for name in names or MODELS:
        MODELS[name](name).save()
        print(f"{name}.gguf: {(FOLDER / f'{name}.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
