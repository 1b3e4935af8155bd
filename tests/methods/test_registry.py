"""What all methods have in common."""

from pad_jax.methods import METHODS


def test_every_method_reads_text_but_sasrec(make_config):
    assert {name for name in METHODS if not METHODS[name](make_config()).reads_text} == {"sasrec"}


def test_the_budget_of_a_phase_is_what_is_written(make_config):
    fields = {"pretrain.minutes": 10.0, "align.minutes": 20.0, "finetune.minutes": 40.0}
    config = make_config(**{"pretrain.epochs": 3, "align.epochs": 5, "finetune.epochs": 7, **fields})
    for name, method in METHODS.items():
        for phase in method(config).phases:
            own = getattr(config, phase.name)
            assert (phase.limits(config).epochs, phase.limits(config).minutes) == (own.epochs, own.minutes), name


def test_recommenders_that_start_from_nothing_have_the_rate_of_phase_one(make_config):
    config = make_config("paper")
    assert config.finetune.learning_rate < config.pretrain.learning_rate
    from_nothing = ("sasrec", "hybrid", "morec", "disco", "ctrl")
    for name in (*from_nothing, "llminit", "letitgo", "alphafuse", "whitenrec", "llmemb"):
        phase = METHODS[name](config).phases[-1]
        assert phase.limits(config).learning_rate == config.pretrain.learning_rate, name
