"""Tuning an encoder with LoRA: losses, what is trained, what is written, resuming; tiny random BERT and Llama."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from pad_jax import parallel, sealed
from pad_jax.config import config_dict, resolve
from pad_jax.errors import UserError
from pad_jax.run import run
from pad_jax.text import tune as tuning
from pad_jax.text.encode import encode, load_encoder
from pad_jax.text.examples import examples
from pad_jax.text.tune import Trainer, divergence, hard_contrast, no_negatives, soft_contrast, tune
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.step import TrainState
from pad_jax.tune import id_vectors
from pad_jax.workdir.identity import Workdir, changes_results
from tests.support.data import small_config

torch = pytest.importorskip("torch", reason="tuning needs torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")
torch.set_num_threads(1)

WORDS = ["green", "tea", "dark", "roasted", "coffee", "dog", "food", "pack", "small", "large", "of", "two"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **SIZES)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    import tokenizers

    folder = tmp_path_factory.mktemp("llama")
    words = ["<s>", "</s>", "<unk>", *WORDS]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=len(words), num_key_value_heads=2, pad_token_id=None, **SIZES)
    transformers.LlamaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def shop(dataset):
    """The tiny dataset with titles of one to four parts."""
    random = np.random.default_rng(0)
    titles = [", ".join(" ".join(random.choice(WORDS, 2)) for _ in range(n % 4 + 1)) for n in range(30)]
    return replace(dataset, titles=titles)


def settings(encoder, **fields):
    usual = {"text.encoder": encoder, "tune.batch": 8, "tune.epochs": 3, "tune.learning_rate": 0.01, "tune.rank": 2}
    return small_config(**usual | {"tune.held_out": 0.1} | {n.replace("__", "."): v for n, v in fields.items()})


I, J = torch.arange(4.0, dtype=torch.float64)[:, None], torch.arange(3.0, dtype=torch.float64)
ZS, ZT = torch.sin(1 + I + 2 * J), torch.cos(1 + 2 * I + J) + 0.5


@pytest.mark.parametrize(("temperature", "value"), [(1, 1.897846814821), (2, 1.593545947200), (3, 1.515718241103)])
def test_soft_targets_are_the_official_loss(temperature, value):
    tau = torch.tensor(float(temperature), dtype=torch.float64, requires_grad=True)
    x = ZS.clone().requires_grad_()
    found = soft_contrast(x, ZT, tau)
    assert found.item() == pytest.approx(value, abs=1e-9)
    assert torch.autograd.gradcheck(lambda x, tau: soft_contrast(x, ZT, tau), (x, tau))  # through Q and tau


def test_hard_targets():
    from torch.nn.functional import normalize

    none = torch.zeros(4, 4, dtype=torch.bool)
    assert float(hard_contrast(ZS, ZT, none, 2.0)) == pytest.approx(1.632288519152, abs=1e-9)
    for temperature, value in ((0.1, 9.152183979655), (1.0, 1.749353303216)):
        found = float(hard_contrast(normalize(ZS), normalize(ZT), none, temperature))
        assert found == pytest.approx(value, abs=1e-9)


def test_equal_texts_are_no_negatives_of_each_other():
    first, second = torch.tensor([0, 1, 0, 5]), torch.tensor([3, 4, 6, 1])
    found = no_negatives(first, second)
    assert found.tolist() == [
        [i != j and (a in (c, d) or b == d) for j, (c, d) in enumerate(zip(first, second, strict=True))]
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    assert found.sum() == 3  # equal first ones, both ways; the second of the last is the first of another
    logits = ZS @ ZT.T
    rows = [logits[i].masked_select(~found[i]).logsumexp(0) - logits[i, i] for i in range(4)]
    columns = [logits[:, i].masked_select(~found[:, i]).logsumexp(0) - logits[i, i] for i in range(4)]
    expected = float(sum(rows) + sum(columns)) / 8
    assert float(hard_contrast(ZS, ZT, found, 1.0)) == pytest.approx(expected, abs=1e-12)


def test_divergence_of_shares():
    shares = torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.25, 0.5], [0, 0, 1]], dtype=torch.float64)
    found = float(divergence(ZS, shares))
    assert found == pytest.approx(0.255016994679, abs=1e-9)
    entropy = -float(torch.xlogy(shares, shares).sum(1).mean())
    assert found + entropy == pytest.approx(0.688233982529, abs=1e-9)
    assert float(divergence(torch.log(shares.clamp(min=1e-30)), shares)) == pytest.approx(0, abs=1e-12)


class Killed(BaseException):
    """What ends a run without being caught."""


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_adapter_is_made_and_read_and_a_killed_run_goes_on(bert, shop, tmp_path, monkeypatch, capsys):
    config = settings(bert, text__max_length=9)
    tune(tmp_path / "whole", shop, config)
    whole = files(tmp_path / "whole")
    assert sorted(whole) == ["adapter_config.json", "adapter_model.safetensors", "tune.json"]
    said = json.loads(whole["adapter_config.json"])
    assert said["target_modules"] == ["dense", "key", "query", "value"]
    assert b"pooler" not in whole["adapter_model.safetensors"]
    about = sealed.read_json(tmp_path / "whole" / "tune.json", 1, "")
    losses = about["epochs"]
    assert [epoch["epoch"] for epoch in losses] == [0, 1, 2, 3]
    assert losses[3]["loss"] < losses[1]["loss"]
    assert about["steps"] == 9
    assert about["settings"]["seed"] == 0

    keep = Trainer._keep

    def killed(self, *args):
        keep(self, *args)
        if len(self.history) == 3:
            raise Killed

    monkeypatch.setattr(Trainer, "_keep", killed)
    with pytest.raises(Killed):
        tune(tmp_path / "killed", shop, config)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == ["killed.partial", "whole"]
    monkeypatch.setattr(Trainer, "_keep", keep)
    left = tmp_path / ".killed.0.partial"
    left.mkdir()  # of a process that was killed while it wrote
    shutil.copy(tmp_path / "killed.partial", tmp_path / "other.partial")
    capsys.readouterr()
    tune(tmp_path / "killed", shop, config)
    output = capsys.readouterr().out
    assert "goes on after epoch 2" in output
    assert "epoch 3: loss" in output
    assert "epoch 2: loss" not in output
    assert files(tmp_path / "killed") == whole
    assert not left.exists()
    assert not (tmp_path / "killed.partial").exists()
    tune(tmp_path / "killed", shop, config)
    assert "finished before" in capsys.readouterr().out
    other = replace(config, seed=1)
    tune(
        tmp_path / "other", shop, replace(other, tune=replace(other.tune, epochs=1))
    )  # another one's epoch is no start
    assert "goes on" not in capsys.readouterr().out
    (tmp_path / "killed" / "adapter_model.safetensors").write_bytes(b"x")
    for folder, changed, message in (
        ("whole", other, r"whole is there already, with settings.seed 0 and not 1: remove it, or set another"),
        ("killed", config, "is damaged"),
        ("", config, "is there already and no adapter of the job"),
    ):
        with pytest.raises(UserError, match=message):
            tune(tmp_path / folder, shop, changed)

    plain, _ = encode(shop.titles, config.text)
    text = replace(config.text, adapters=(str(tmp_path / "whole"),))
    tuned, manifest = encode(shop.titles, text)
    assert np.abs(tuned - plain).max() > 0.01
    assert manifest["adapters"] == [str(tmp_path / "whole")]
    tune(
        tmp_path / "second", shop, replace(config, text=text, tune=replace(config.tune, epochs=1))
    )  # on top of the first
    again, _ = encode(shop.titles, replace(text, adapters=(str(tmp_path / "whole"), str(tmp_path / "second"))))
    assert np.abs(again - tuned).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "fields", "names"),
    [
        ("bert", {"tune__targets": "soft"}, {"query", "key", "value", "dense"}),
        ("llama", {"tune__kind": "neighbours", "text__pooling": "last"}, None),
        ("llama", {"tune__kind": "neighbours", "text__bidirectional": True, "text__pooling": "mean_text"}, None),
    ],
)
def test_only_what_is_beside_the_weights_is_trained_and_the_loss_falls(request, shop, tmp_path, name, fields, names):
    folder = request.getfixturevalue(name)
    config = settings(folder, **fields)
    found = examples(shop, config)
    fixed = found.draw(np.random.default_rng(99))
    trainer = Trainer(config, found)
    temperature = trainer.trained.get("temperature", torch.zeros(())).item()

    def loss():
        trainer.model.train(False)
        with torch.no_grad():
            return float(trainer.loss(fixed, trainer.tokens(fixed.texts), np.arange(8)))

    before = loss()
    trainer.run(tmp_path / "partial", {})
    assert loss() < before
    assert (temperature == 3 and float(trainer.trained["temperature"].detach()) != 3) or not temperature
    modules = names or {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {n.split(".lora_")[0].rpartition(".")[2] for n in trainer.trained if ".lora_" in n} == modules
    theirs = load_encoder(config.text).model.state_dict()
    ours = {
        n.removeprefix("base_model.model.").replace(".base_layer", ""): p for n, p in trainer.model.state_dict().items()
    }
    assert all(torch.equal(ours[n], p) for n, p in theirs.items())

    texts = [
        "green tea, dog food",
        "coffee",
        "small pack of two, green tea, dark roasted coffee",
    ]  # neither pads nor mates
    with torch.no_grad():
        together = trainer.pooled(trainer.tokens(texts), np.arange(3))
        alone = torch.cat([trainer.pooled(trainer.tokens([text]), np.zeros(1, np.int64)) for text in texts])
        side = trainer.encoder.tokenizer.padding_side
        trainer.encoder.tokenizer.padding_side = "left" if side == "right" else "right"
        other = trainer.pooled(trainer.tokens(texts), np.arange(3))
    for one in (alone, other) if name == "llama" else (alone,):  # BERT counts positions from the left
        torch.testing.assert_close(one, together, atol=1e-5, rtol=0)


def two_classes(dataset):
    """Users of tea and users of dogs."""
    titles = ["green tea" if n < 15 else "dog food" for n in range(30)]
    events = (
        np.where(
            np.repeat(np.arange(37) % 2, np.diff(dataset.starts)) == 0, dataset.events % 15, 15 + dataset.events % 15
        )
        + 1
    )
    return replace(dataset, titles=titles, events=events.astype(np.int32)), np.array([-1, *([0] * 15), *([1] * 15)])


def test_preferences_are_told_from_titles(bert, dataset, tmp_path, capsys):
    data, classes = two_classes(dataset)
    config = settings(
        bert, tune__kind="preference", tune__clusters=2, tune__epochs=8, tune__learning_rate=0.03, tune__history=12
    )
    found = examples(data, config, classes)
    trainer = Trainer(config, found).run(tmp_path / "partial", {})
    first, last = trainer.history[0], trainer.history[-1]
    assert first["held_out"] == pytest.approx(first["of_the_mean"], abs=1e-6)  # where it begins
    assert last["held_out"] < 0.2 * last["of_the_mean"]
    assert "held out" in capsys.readouterr().out
    with torch.no_grad():
        state = trainer.pooled(trainer.tokens(["green tea", "dog food"]), np.arange(2))
        assert (state @ trainer.trained["weight"].T + trainer.trained["bias"]).argmax(1).tolist() == [0, 1]
    assert np.diff(trainer.tokens(found.held_out.texts).starts).max() <= 12
    part, user = found.held_out, examples(data, config, classes).held_out
    assert part.texts == user.texts
    changed = replace(data, events=data.events.copy())
    for place in (data.cuts.valid, data.cuts.test):
        changed.events[place] = 1 + changed.events[place] % 30
    assert examples(changed, config, classes).held_out.texts == part.texts
    assert all(
        set(text.split(", ")) == {("green tea", "dog food")[int(share.argmax())]}
        for text, share in zip(*part, strict=True)
    )


def test_the_newest_titles_are_kept(bert, shop):
    config = settings(bert, tune__kind="preference", tune__clusters=2, tune__history=2)
    part = examples(shop, config, np.ones(31, np.int64)).draw(np.random.default_rng(0))
    prefixes = [shop.events[a : b - 2] for a, b in zip(shop.starts[:-1], shop.starts[1:], strict=True)]
    expected = {", ".join(shop.titles[i - 1] for i in reversed(prefix[-2:])) for prefix in prefixes}
    assert set(part.texts) <= expected


def test_what_cannot_be_done_is_one_line(bert, shop, tmp_path, monkeypatch):
    found = examples(shop, settings(bert))
    with pytest.raises(
        UserError, match=r"config.tune.modules has 'q_proj', and the linear layers of .* are dense, key, q"
    ):
        Trainer(settings(bert, tune__modules=("query", "q_proj")), found)
    with pytest.raises(UserError, match=r"is not finite; lower config.tune.learning_rate"):
        Trainer(settings(bert, tune__learning_rate=1e30), found).run(tmp_path / "p", {})
    monkeypatch.setattr(tuning, "LINEAR", set())
    with pytest.raises(
        UserError, match=r"config.tune.modules has to name some: the linear layers of .* are dense, key"
    ):
        Trainer(settings(bert), found)
    for name in ("torch", "peft"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(UserError, match=f"the job tune needs {name}: pip install"):
                Trainer(settings(bert), found)
    assert not list(tmp_path.iterdir())


def test_time_is_up(bert, shop, tmp_path, capsys):
    trainer = Trainer(settings(bert, tune__minutes=1e-9), examples(shop, settings(bert))).run(tmp_path / "p", {})
    assert len(trainer.history) == 2
    assert "minutes are over after epoch 1" in capsys.readouterr().out


@pytest.fixture
def pretrained(world, dataset, tmp_path):
    """A workdir with a finished phase `pretrain`, made by hand: items have two kinds of ID vectors."""
    config = small_config(**world | {"method": "sasrec"})
    workdir = Workdir(tmp_path / "w", config, dataset.fingerprint, None, 1)
    workdir.write_config("pretrain")
    vectors = np.where(np.arange(31)[:, None] < 15, np.float32(1), np.arange(16, dtype=np.float32))
    state = parallel.replicate(TrainState({"tables": {"id": vectors}}, {}, {}, np.int32(1)))
    with Checkpoints(tmp_path / "w" / "pretrain" / "checkpoints", workdir.of) as checkpoints:
        checkpoints.save(1, state, {}, {"best": 1.0, "best_epoch": 1})
    workdir.results["phases"]["pretrain"] = {"best_epoch": 1}
    workdir.write({})
    return tmp_path / "w", vectors


def test_the_job_asks_a_finished_run_for_classes(bert, pretrained, world, dataset, tmp_path):
    workdir, vectors = pretrained
    fields = {"text.encoder": bert, "tune.kind": "preference", "tune.clusters": 2, "tune.epochs": 1, "tune.batch": 8}
    config = replace(small_config(**world | fields), job="tune")
    chosen = replace(config.tune, output=str(tmp_path / "a"), classes=str(workdir))
    assert run(replace(config, tune=chosen)) == {}
    about = sealed.read_json(tmp_path / "a" / "tune.json", 1, "")
    assert about["settings"]["kind"] == "preference"
    assert "users and their shares of 2 classes" in about["examples"]
    np.testing.assert_array_equal(id_vectors(workdir, dataset, ""), vectors)
    with pytest.raises(
        UserError, match=r"has no finished phase pretrain, which tells the classes of items: make it with"
    ):
        run(config)
    with pytest.raises(UserError, match="was made from other data"):
        id_vectors(workdir, replace(dataset, titles=["x"] * 30), "")


def test_settings_of_the_job_make_no_other_run():
    assert not changes_results("tune.rank")
    source = config_dict("pantry")
    assert resolve(source).tune.separator == ", "
    assert resolve(config_dict("mind")).tune.separator == "; "
    assert resolve(config_dict("pantry", recipe="official")).tune.first_temperature == 3
