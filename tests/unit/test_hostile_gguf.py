"""A GGUF file is judged by its header, quickly and in bounds, before any library believes what stands in it."""

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import ModelError
from worker.models.checks import check_file
from worker.models.gguf import MAX_ENTRIES, MAX_NAME_BYTES, MAX_TENSORS, MAX_VALUES, PACKINGS, read_gguf

MAX_SECONDS = 5.0  # several times what the slowest takes on a busy machine
UINT32, STRING, LIST = 4, 8, 9
F32, Q8_0 = 0, 8


def name(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content)) + content


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return name(key) + struct.pack("<I", kind) + value


def tensor(key: str | bytes = "x", sides: tuple[int, ...] = (4,), kind: int = F32, offset: int = 0) -> bytes:
    return name(key) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, offset)


def file_of(*tensors: bytes, entries: tuple[bytes, ...] = (), data: int = 16, **changes: int) -> bytes:
    """A file with these parts; its counts are theirs if no others are given."""
    told = {"version": 3, "tensor_count": len(tensors), "entry_count": len(entries)} | changes
    head = b"GGUF" + struct.pack("<IQQ", told["version"], told["tensor_count"], told["entry_count"])
    content = b"".join((head, *entries, *tensors))
    return content + bytes(-len(content) % 32 + data)


def refusal(content: bytes, folder: Path) -> str:
    path = folder / "file.gguf"
    path.write_bytes(content)
    begun = time.monotonic()
    with pytest.raises(ModelError) as refused:
        check_file(path)
    assert time.monotonic() - begun < MAX_SECONDS
    line = str(refused.value)
    assert line.isprintable() and len(line) < 800 and line.startswith(str(path))
    return line


def lists(count: int) -> bytes:
    return entry("list", LIST, struct.pack("<IQ", UINT32, count) + bytes(4 * min(count, 10)))


HOSTILE = {
    "nothing": (b"", "is empty"),
    "a web page": (b"<!DOCTYPE html>", "no GGUF file, whatever its name says"),
    "a pickle": (b"PK\x03\x04" + bytes(100), "no GGUF file"),
    "its mark alone": (b"GGUF", "ends"),
    "another version": (file_of(tensor(), version=1), "version 1; read are 2 and 3"),
    "the other end first": (file_of(tensor(), version=3 << 24), "version 50331648"),
    "too many tensors": (file_of(tensor(), tensor_count=MAX_TENSORS + 1), f"{MAX_TENSORS + 1} tensors"),
    "all numbers as tensors": (file_of(tensor(), tensor_count=2**64 - 1), "tensors; allowed"),
    "more than there are": (file_of(tensor(), tensor_count=1000), "0 sides"),
    "too many entries": (file_of(entry_count=2**40), f"entries; allowed: {MAX_ENTRIES}"),
    "a name without end": (file_of(struct.pack("<Q", 2**63) + b"x"), f"allowed: {MAX_NAME_BYTES}"),
    "a name that is none": (file_of(tensor(b"\xff\xfe")), "no UTF-8"),
    "a name that rewrites the line": (file_of(tensor("x\x1b[2K\ny")), r"'x\x1b[2K\ny'"),
    "one name twice": (file_of(tensor(), tensor()), "x twice"),
    "one entry twice": (file_of(entries=(entry("k", UINT32, bytes(4)),) * 2), "k twice"),
    "a text without end": (file_of(entries=(entry("k", STRING, struct.pack("<Q", 2**62)),)), "ends"),
    "a list without end": (file_of(entries=(lists(2**60),)), f"allowed: {MAX_VALUES}"),
    "a list that is not there": (file_of(entries=(lists(MAX_VALUES),)), "ends"),
    "lists of lists": (file_of(entries=(entry("k", LIST, struct.pack("<IQ", LIST, 1) * 5000),)), "list of lists"),
    "an unknown value": (file_of(entries=(entry("k", 77, b""),)), "unknown kind 77"),
    "no alignment": (file_of(tensor(), entries=(entry("general.alignment", UINT32, bytes(4)),)), "power of two"),
    "a vast alignment": (
        file_of(tensor(), entries=(entry("general.alignment", UINT32, struct.pack("<I", 2**31)),)), "power of two"),
    "an alignment in words": (file_of(entries=(entry("general.alignment", STRING, name("32")),)), "power of two"),
    "no sides": (file_of(tensor(sides=())), "x has 0 sides"),
    "many sides": (file_of(tensor(sides=(1,) * 5)), "x has 5 sides"),
    "as many sides as there are numbers": (file_of(name("x") + struct.pack("<I", 2**32 - 1)), "sides"),
    "a side of nothing": (file_of(tensor(sides=(0,))), "x has 0 numbers in a row"),
    "an unknown type": (file_of(tensor(kind=99)), "x is of ggml's type 99; read are F32"),
    "a type that diffusers cannot read": (file_of(tensor(sides=(256,), kind=16), data=4096), "type 16"),
    "half a block": (file_of(tensor(sides=(48,), kind=Q8_0), data=512), "Q8_0 packs 32"),
    "larger than the file": (file_of(tensor(sides=(5,))), "x ends behind its last byte"),
    "larger than memory": (file_of(tensor(sides=(2**40, 2**40, 2**40, 2**40))), "ends behind"),
    "sides that overflow": (file_of(tensor(sides=(2**32, 2**32))), "ends behind"),
    "beyond the file": (file_of(tensor(offset=2**63)), "ends behind"),
    "one piece many times": (file_of(*(tensor(f"x{i}", (999,)) for i in range(99)), data=4096), "overlap"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_is_named(what: str, tmp_path: Path) -> None:
    content, words = HOSTILE[what]

    assert words in refusal(content, tmp_path)


def test_a_file_that_ends_anywhere_is_named(tmp_path: Path) -> None:
    whole = file_of(tensor(), entries=(entry("k", STRING, name("text")), lists(3)), data=16)
    (tmp_path / "file.gguf").write_bytes(whole)
    check_file(tmp_path / "file.gguf")

    for length in range(len(whole)):
        refusal(whole[:length], tmp_path)


def test_a_vast_header_costs_no_more_than_its_bound(tmp_path: Path) -> None:
    many = tuple(entry(f"k{i}", STRING, name("x" * 10_000)) for i in range(2_000))

    assert "16,000,000 bytes" in refusal(file_of(tensor(), entries=many), tmp_path)


@given(st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_changed_bytes_are_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(file_of(tensor("a"), tensor("b", (2, 2), offset=32), entries=(lists(2),), data=64))
    for place in data.draw(st.lists(st.integers(4, len(whole) - 1), min_size=1, max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "file.gguf"
    path.write_bytes(whole)
    try:
        read = read_gguf(path)
    except ModelError as error:
        assert str(error).isprintable()
    else:
        assert sum(one.size for one in read.values()) <= len(whole)


def test_the_sizes_of_blocks_are_those_of_the_format() -> None:
    for number, packing in PACKINGS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (packing.name, packing.numbers, packing.bytes) == (kind.name, *gguf.GGML_QUANT_SIZES[kind])


def test_what_the_packages_own_writer_writes_is_read(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "file.gguf", "flux")
    writer.add_array("list", ["a", "b"])
    writer.add_float32("number", 1.5)
    writer.add_custom_alignment(64)
    values = {"plain": np.ones((3, 5), np.float32), "packed": np.ones((4, 64), np.float32)}
    writer.add_tensor("plain", values["plain"])
    packed = gguf.quants.quantize(values["packed"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    read = read_gguf(tmp_path / "file.gguf")

    assert {name: (one.shape, one.packing.name, one.size) for name, one in read.items()} == {
        "plain": ((3, 5), "F32", 60),
        "packed": ((4, 64), "Q8_0", packed.nbytes),
    }
