#!/usr/bin/env python3
"""Writes a GGUF model of a chosen shape with random weights, for measurements.

Arithmetic, KV and speed are those of a real model of that shape; its text means nothing.
Architecture llama, weights q8_0 or q4_0. The vocabulary is that of another GGUF file. Equal
arguments give equal files. Needs nothing but Python 3.9.

    Scripts/make-model.py --out /tmp/wide.gguf

writes the default shape: many KV heads for few parameters, 41 KB of KV per token.
"""
import argparse
import random
import struct
import sys
from pathlib import Path

ALIGNMENT = 32
F32, Q4_0, Q8_0 = 0, 2, 8
UINT32, FLOAT32, STRING, ARRAY, UINT64 = 4, 6, 8, 9, 10
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", 5: "i", FLOAT32: "f", 7: "?", UINT64: "Q",
           11: "q", 12: "d"}
# Per type: its number, the one of files in it, bytes per 32 weights, deviation of random bytes.
TYPES = {"q8_0": (Q8_0, 7, 34, 73.9), "q4_0": (Q4_0, 2, 18, 4.61)}


class Reader:
    """Walks over the metadata of a GGUF file."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def scalar(self, code):
        value = struct.unpack_from("<" + code, self.data, self.place)[0]
        self.place += struct.calcsize("<" + code)
        return value

    def text(self):
        count = self.scalar("Q")
        self.place += count
        return self.data[self.place - count:self.place]

    def skip(self, kind):
        """Passes a value; gives the number of elements of an array."""
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            element, count = self.scalar("I"), self.scalar("Q")
            if element in SCALARS:
                self.place += count * struct.calcsize("<" + SCALARS[element])
            else:
                for _ in range(count):
                    self.skip(element)
            return count
        else:
            self.scalar(SCALARS[kind])
        return None


def vocabulary(path):
    """The tokenizer's entries as they are in the file, and how many tokens there are."""
    reader = Reader(path.read_bytes())
    if reader.data[:4] != b"GGUF":
        sys.exit(f"{path} is no GGUF file")
    reader.place = 4
    version, _, count = reader.scalar("I"), reader.scalar("Q"), reader.scalar("Q")
    if version not in (2, 3):
        sys.exit(f"{path} has version {version}, not 2 or 3")
    entries, tokens = [], 0
    for _ in range(count):
        start = reader.place
        key, kind = reader.text(), reader.scalar("I")
        elements = reader.skip(kind)
        if key.startswith(b"tokenizer."):
            entries.append(reader.data[start:reader.place])
        if key == b"tokenizer.ggml.tokens":
            tokens = elements
    if not tokens:
        sys.exit(f"{path} has no vocabulary")
    return entries, tokens


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key, kind, value):
    packed = text(value) if kind == STRING else struct.pack("<" + SCALARS[kind], value)
    return text(key) + struct.pack("<I", kind) + packed


def metadata(shape, tokens):
    file_type = TYPES[shape.type][1]
    name = f"random-{shape.layers}x{shape.width}"
    numbers = {
        "context_length": shape.context, "embedding_length": shape.width,
        "block_count": shape.layers, "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads, "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_size, "attention.value_length": shape.head_size,
        "rope.dimension_count": shape.head_size, "vocab_size": tokens}
    entries = [
        entry("general.architecture", STRING, "llama"), entry("general.name", STRING, name),
        entry("general.description", STRING, "random weights, for measurements only"),
        entry("general.file_type", UINT32, file_type),
        entry("general.quantization_version", UINT32, 2)]
    entries += [entry("llama." + key, UINT32, value) for key, value in numbers.items()]
    entries += [
        entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        entry("llama.rope.freq_base", FLOAT32, 10000.0)]
    return entries


def tensors(shape, tokens):
    """Name, outputs and inputs; one number for those that scale."""
    width, keys = shape.width, shape.kv_heads * shape.head_size
    queries = shape.heads * shape.head_size
    yield "token_embd.weight", (tokens, width)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (width,)
        yield block + "attn_q.weight", (queries, width)
        yield block + "attn_k.weight", (keys, width)
        yield block + "attn_v.weight", (keys, width)
        yield block + "attn_output.weight", (width, queries)
        yield block + "ffn_norm.weight", (width,)
        yield block + "ffn_gate.weight", (shape.ffn, width)
        yield block + "ffn_up.weight", (shape.ffn, width)
        yield block + "ffn_down.weight", (width, shape.ffn)
    yield "output_norm.weight", (width,)


def weights(kind, size, generator):
    """Blocks of 32: a half-precision scale, then whole numbers by chance."""
    if len(size) == 1:
        return struct.pack("<f", 1.0) * size[0]
    _, _, block_bytes, deviation = TYPES[kind]
    blocks = size[0] * size[1] // 32
    scale = struct.pack("<e", 1 / (deviation * size[1] ** 0.5))
    data = bytearray(blocks * block_bytes)
    data[0::block_bytes] = scale[:1] * blocks
    data[1::block_bytes] = scale[1:] * blocks
    for place in range(2, block_bytes):
        data[place::block_bytes] = generator.randbytes(blocks)
    return bytes(data)


def padding(count):
    return bytes(-count % ALIGNMENT)


def write(path, shape):
    entries, tokens = vocabulary(shape.vocabulary)
    entries = metadata(shape, tokens) + entries
    kind, _, block_bytes, _ = TYPES[shape.type]
    infos, place = [], 0
    for name, size in tensors(shape, tokens):
        is_scale = len(size) == 1
        byte_count = size[0] * 4 if is_scale else size[0] * size[1] // 32 * block_bytes
        infos.append(
            text(name) + struct.pack("<I", len(size))
            + b"".join(struct.pack("<Q", number) for number in reversed(size))
            + struct.pack("<IQ", F32 if is_scale else kind, place))
        place += byte_count + len(padding(byte_count))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(entries))
    head += b"".join(entries) + b"".join(infos)
    generator = random.Random(shape.seed)
    with open(path, "wb") as file:
        file.write(head + padding(len(head)))
        for _, size in tensors(shape, tokens):
            data = weights(shape.type, size, generator)
            file.write(data + padding(len(data)))


def main():
    own = Path(__file__).resolve().parent.parent / "Models" / "tiny.gguf"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--kv-heads", type=int, default=10)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--ffn", type=int, default=640, help="width between gate and down")
    parser.add_argument("--context", type=int, default=8192, help="longest sequence in tokens")
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    parser.add_argument("--vocabulary", type=Path, default=own, help="GGUF file to take it from")
    parser.add_argument("--seed", type=int, default=1)
    shape = parser.parse_args()
    for name in ("layers", "width", "heads", "kv_heads", "head_size", "ffn", "context"):
        if getattr(shape, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is at least 1")
    inputs = (shape.width, shape.ffn, shape.heads * shape.head_size)
    if any(number % 32 for number in inputs) or shape.head_size % 2:
        parser.error("width, ffn and heads times head size are multiples of 32, head size is even")
    if shape.heads % shape.kv_heads:
        parser.error("heads are a multiple of KV heads")
    write(shape.out, shape)
    per_token = 2 * 2 * shape.layers * shape.kv_heads * shape.head_size
    size = shape.out.stat().st_size / 1e6
    print(f"{shape.out}: {size:.0f} MB, {per_token} bytes of f16 KV a token")


if __name__ == "__main__":
    main()
