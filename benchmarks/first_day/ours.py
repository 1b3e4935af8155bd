"""The jobs with pad_jax."""

import polars as pl

import pad_jax
from benchmarks.first_day.jobs import Shop, elsewhere


def job_01_train(shop: Shop):
    """Reads both tables and trains."""
    return pad_jax.fit(
        shop.events,
        shop.items,
        table={"text": "{title}, {genres}"},
        text={"encoder": "tfidf"},
        pretrain={"epochs": shop.epochs},
        finetune={"epochs": shop.epochs},
        workdir=shop.folder / "run",
    )


def job_02_lists(shop: Shop, model: pad_jax.Model):
    """A file with ten items for every user, and for one without events."""
    lists = model.recommend(model.histories["user"]).to_polars()
    popular = model.popular().to_polars().with_columns(user=pl.lit(shop.newcomer))
    pl.concat([lists, popular]).write_csv(shop.folder / "lists.csv")
    return shop.folder / "lists.csv"


def job_03_history(shop: Shop, model: pad_jax.Model):
    """A list for a history that is no user's."""
    return model.recommend([shop.history]).items[0].tolist()


def job_04_new_item(shop: Shop, model: pad_jax.Model):
    """Two items without events are candidates, by their titles and genres."""
    new = pl.read_csv(shop.new).with_columns(text=pl.format("{}, {}", "title", "genres")).to_dict(as_series=False)
    model = model.add_items(new["item"], new["title"], texts=new["text"])
    return model.recommend([shop.user], items=shop.candidates).items[0].tolist()


def job_05_in_stock(shop: Shop, model: pad_jax.Model):
    """A list of what is in stock."""
    return model.recommend([shop.user], items=shop.stock).items[0].tolist()


def job_06_similar(shop: Shop, model: pad_jax.Model):
    """The ten items most like one."""
    return model.similar_items([shop.item]).items[0].tolist()


def job_07_because(shop: Shop, model: pad_jax.Model):
    """The event of the user that speaks most for the first item of the list."""
    return model.recommend([shop.user], k=1, explain=True).because[0, 0]


def job_08_by_group(shop: Shop, model: pad_jax.Model):
    """HR@10 of the last event of users, of the model and of popularity, by how often training met it."""
    table = model.evaluate().filter(split="test")
    tables = {"model": table.filter(scorer=model.results["served"]), "popularity": table.filter(scorer="popularity")}
    return {name: dict(of.select("group", "HR@10").iter_rows()) for name, of in tables.items()}


def job_09_elsewhere(shop: Shop, model: pad_jax.Model):
    """Saves the model; another process loads it and gives the list of job 3."""
    model.save(shop.folder / "saved")
    return job_03_history(shop, model), elsewhere(f"""
        import pad_jax
        model = pad_jax.load({str(shop.folder / "saved")!r})
        answer = model.recommend([{shop.history!r}]).items[0].tolist()
    """)


def job_10_next_week(shop: Shop, model: pad_jax.Model):
    """Goes on from the model with the events of another week, and gives a list to a user who came in it."""
    events = pl.concat([pl.read_csv(shop.events), pl.read_csv(shop.later)])
    model = pad_jax.fit(
        events,
        shop.items,
        table={"text": "{title}, {genres}"},
        text={"encoder": "tfidf"},
        start=str(model.workdir),
        data={"holdout": False},
        pretrain={"epochs": 1},
        workdir=shop.folder / "next",
    )
    return model.recommend([shop.arrival]).items[0].tolist()
