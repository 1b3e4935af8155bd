"""Causal language models as text encoders, the way LLM2Vec uses them; tiny random Llama, Mistral, Qwen and Gemma 3."""

from dataclasses import replace

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text.encode import encode, load_encoder, tokenize, vectors
from pad_jax.text.settings import TextSettings

torch = pytest.importorskip("torch", reason="encoding needs torch")
transformers = pytest.importorskip("transformers")
TITLES = ["green tea", "roasted coffee beans with a long title", "dog", "tea green"]
KINDS = ("llama", "mistral", "qwen")
#: One layer attends within a window, the other to all.
GEMMA = {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}


@pytest.fixture(scope="module", params=KINDS)
def language_model(request, tmp_path_factory):
    """A causal model of width 16 with random weights and a word tokenizer that puts <s> first."""
    import tokenizers

    folder = tmp_path_factory.mktemp(request.param)
    words = ["<s>", "</s>", "<unk>", "query:", *sorted({w for t in TITLES for w in t.split()})]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaModel),
        "mistral": (transformers.MistralConfig, transformers.MistralModel),
        "qwen": (transformers.Qwen2Config, transformers.Qwen2Model),
        "gemma": (transformers.Gemma3TextConfig, transformers.Gemma3TextModel),
    }
    config_class, model_class = classes[request.param]
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(words) + 4,  # Qwen's tokenizer adds its own
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=None,
        **GEMMA if request.param == "gemma" else {},
    )
    model_class(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapters(language_model, tmp_path_factory):
    """Two LoRA adapters with random weights; the second was trained on the first one's merged weights."""
    peft = pytest.importorskip("peft")
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(language_model)
        names = ["q_proj", "v_proj", "up_proj"]
        lora = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names, init_lora_weights=False)
        wrapped = peft.get_peft_model(model, lora)
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        wrapped.save_pretrained(folder)
        folders.append(str(folder))
    return tuple(folders)


def settings(encoder: str, **fields) -> TextSettings:
    chosen = {"bidirectional": True, "pooling": "mean_text", "normalize": False, "batch": 2}
    return TextSettings(encoder=encoder, **chosen | fields)


def states(encoder, ids):
    with torch.no_grad():
        return encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


@pytest.mark.parametrize("language_model", [*KINDS, "gemma"], indirect=True)
def test_token_0_sees_the_last_token(language_model):
    for bidirectional in (True, False):
        encoder = load_encoder(settings(language_model, bidirectional=bidirectional))
        first, second = states(encoder, [0, 4, 5, 6])[0], states(encoder, [0, 4, 5, 7])[0]
        assert np.allclose(first, second) != bidirectional


def test_a_model_that_stays_causal_is_refused(language_model, monkeypatch):
    load = transformers.AutoModel.from_pretrained

    def causal(source, config, **options):
        config.is_causal = True  # as if the library did not look at it
        return load(source, config=config, **options)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", causal)
    with pytest.raises(UserError, match="stays causal with transformers"):
        load_encoder(settings(language_model))


@pytest.mark.parametrize("language_model", ["gemma"], indirect=True)
@pytest.mark.parametrize("mask", ["create_causal_mask", "create_sliding_window_causal_mask"])
def test_a_single_layer_that_stays_causal_is_refused(language_model, monkeypatch, mask):
    from transformers.models.gemma3 import modeling_gemma3

    make = getattr(modeling_gemma3, mask)
    load_encoder(settings(language_model))

    def causal(config, **options):
        config.is_causal = True
        try:
            return make(config=config, **options, allow_is_causal_skip=False)
        finally:
            config.is_causal = False

    monkeypatch.setattr(modeling_gemma3, mask, causal)
    with pytest.raises(UserError, match="stays causal with transformers"):
        load_encoder(settings(language_model))


@pytest.mark.parametrize("language_model", ["gemma"], indirect=True)
def test_a_window_is_to_both_sides(language_model):
    """In the first layer a token sees those at most 4 away, whichever side they are on."""
    encoder = load_encoder(settings(language_model))
    ids = torch.tensor([[4, 5, 6, 7, 4, 5, 6, 7, 4, 5]] * 2)
    ids[1, 5] = 7
    with torch.no_grad():
        one, other = encoder.model(input_ids=ids, output_hidden_states=True).hidden_states[1]
    moved = (one - other).abs().amax(dim=1) > 1e-7
    assert moved.tolist() == [abs(place - 5) <= 4 for place in range(10)]


@pytest.mark.parametrize(
    "language_model", ["llama", "mistral", "gemma"], indirect=True
)  # words are no tokens of Qwen's
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("prompt", ["", "query: green "])
def test_the_mean_is_over_the_title_and_pads_change_nothing(language_model, bidirectional, prompt):
    config = settings(language_model, bidirectional=bidirectional, prompt=prompt)
    encoder = load_encoder(config)
    assert encoder.tokenizer.padding_side == ("left" if bidirectional else "right")
    assert encoder.tokenizer.pad_token_id is not None
    rows, manifest = encode(TITLES, config)
    for title, row in zip(TITLES, rows, strict=True):
        ids = encoder.tokenizer(prompt + title)["input_ids"]
        own = len(title.split())
        assert len(ids) == 1 + len(prompt.split()) + own
        np.testing.assert_allclose(row, states(encoder, ids)[-own:].mean(axis=0), atol=2e-6)
    assert manifest["bidirectional"] == bidirectional
    np.testing.assert_allclose(encode(TITLES, replace(config, batch=1))[0], rows, atol=2e-6)


def test_adapters_are_merged_in_order(language_model, adapters):
    import peft

    config = settings(language_model)
    model = load_encoder(config).model
    for folder in adapters:  # adapter beside the weights, not merged
        model = peft.PeftModel.from_pretrained(model, folder)
        expected_model, model = model, model if folder == adapters[-1] else model.merge_and_unload()
    merged = load_encoder(replace(config, adapters=adapters))
    ids = [0, 4, 5, 6, 7]
    with torch.no_grad():
        expected = expected_model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(states(merged, ids), expected, atol=1e-5)
    assert not np.allclose(expected, states(load_encoder(replace(config, adapters=adapters[:1])), ids), atol=1e-3)
    assert merged.manifest["adapters"] == list(adapters)
    assert not merged.model.training
    assert np.abs(states(merged, [0, 4, 5, 6])[0] - states(merged, [0, 4, 5, 7])[0]).max() > 1e-4  # still sees all


def test_adapters_that_do_not_fit_are_one_line(language_model, adapters, tmp_path):
    with pytest.raises(UserError, match=r"has no adapter_config.json"):
        load_encoder(settings(language_model, adapters=(str(tmp_path),)))
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    for name, change in {
        "nothing": lambda weights: {k: torch.zeros_like(v) for k, v in weights.items()},
        "others": lambda weights: {k.replace("layers.0", "layers.7"): v for k, v in weights.items()},
        "shapes": lambda weights: {k: v[..., :1].contiguous() for k, v in weights.items()},
    }.items():
        folder = tmp_path / name
        shutil.copytree(adapters[0], folder)
        weights = folder / "adapter_model.safetensors"
        save_file(change(load_file(weights)), weights)
        with pytest.raises(UserError, match="does not fit the encoder") as error:
            load_encoder(settings(language_model, adapters=(str(folder),)))
        assert "\n" not in str(error.value)
    shutil.copytree(adapters[0], tmp_path / "pickle")
    (tmp_path / "pickle" / "adapter_model.safetensors").rename(tmp_path / "pickle" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"has no adapter_model.safetensors"):
        load_encoder(settings(language_model, adapters=(str(tmp_path / "pickle"),)))
    (tmp_path / "nothing" / "adapter_config.json").write_text(json.dumps({"peft_type": "NONE"}))
    with pytest.raises(UserError, match="does not fit the encoder"):
        load_encoder(settings(language_model, adapters=(str(tmp_path / "nothing"),)))


def test_half_precision_is_near(language_model):
    config = settings(language_model)
    near = encode(TITLES, replace(config, precision="bfloat16"))[0]
    exact = encode(TITLES, config)[0]
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1


@pytest.mark.parametrize("language_model", ["llama", "mistral"], indirect=True)  # words are no tokens of Qwen's
def test_long_titles_are_cut_and_empty_ones_have_a_vector(language_model):
    config = settings(language_model, max_length=3)
    encoder = load_encoder(config)
    tokens = tokenize(encoder, ["green tea dog dog dog", ""], config)
    assert np.diff(tokens.starts).tolist() == [3, 1]
    assert tokens.spans.tolist() == [[1, 3], [0, 1]]
    assert all(np.isfinite(rows).all() for _, rows in vectors(encoder, tokens, config))


def test_weights_in_a_pickle_are_not_read(language_model, tmp_path):
    import shutil

    shutil.copytree(language_model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(UserError, match="is not an encoder that can be loaded"):
        load_encoder(settings(str(tmp_path / "m")))
