"""The jobs with RecTools: SASRec, and LightFM where titles are to be read."""

import numpy as np
import pandas as pd
from lightfm import LightFM
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import HitRate
from rectools.model_selection import LastNSplitter
from rectools.models import LightFMWrapperModel, PopularModel, SASRecModel

from benchmarks.first_day.jobs import Shop, elsewhere


def job_01_train(shop: Shop):
    """Reads the table of events and trains."""
    events = pd.read_csv(shop.events, header=0, names=[*Columns.UserItem, Columns.Datetime])
    dataset = Dataset.construct(events.assign(weight=1))
    return SASRecModel(n_factors=64, session_max_len=20, epochs=shop.epochs).fit(dataset), dataset


def job_02_lists(shop: Shop, trained):
    """A file with ten items for every user, and for one without events."""
    model, dataset = trained
    users = dataset.user_id_map.external_ids
    lists = model.recommend(users, dataset, k=10, filter_viewed=True, on_unsupported_targets="ignore")
    rest = [user for user in [*users, shop.newcomer] if user not in set(lists[Columns.User])]
    popular = PopularModel().fit(dataset).recommend(rest, dataset, k=10, filter_viewed=True)
    pd.concat([lists, popular]).to_csv(shop.folder / "lists.csv", index=False)
    return shop.folder / "lists.csv"


def job_03_history(shop: Shop, trained):
    """A list for a history that is no user's."""
    model, _ = trained
    events = pd.DataFrame({"user_id": "visitor", "item_id": shop.history, "weight": 1, "datetime": range(5)})
    return model.recommend(["visitor"], Dataset.construct(events), k=10, filter_viewed=True)[Columns.Item].tolist()


def job_04_new_item(shop: Shop, trained):
    """Two items without events are candidates, by their titles and genres: their words are features of LightFM."""
    _, dataset = trained
    items = pd.concat([pd.read_csv(shop.items), pd.read_csv(shop.new)])
    words = (items["title"] + " " + items["genres"]).str.lower().str.findall(r"\w+")
    features = pd.DataFrame({"id": items["item"], "feature": "word", "value": words}).explode("value")
    events = dataset.get_raw_interactions()
    dataset = Dataset.construct(events, item_features_df=features, cat_item_features=["word"])
    model = LightFMWrapperModel(LightFM(no_components=64, loss="warp", random_state=0), epochs=10).fit(dataset)
    lists = model.recommend([shop.user], dataset, k=10, filter_viewed=True, items_to_recommend=shop.candidates)
    return lists[Columns.Item].tolist()


def job_05_in_stock(shop: Shop, trained):
    """A list of what is in stock."""
    model, dataset = trained
    lists = model.recommend([shop.user], dataset, k=10, filter_viewed=True, items_to_recommend=shop.stock)
    return lists[Columns.Item].tolist()


def job_06_similar(shop: Shop, trained):
    """The ten items most like one."""
    model, dataset = trained
    return model.recommend_to_items([shop.item], dataset, k=10)[Columns.Item].tolist()


def job_07_because(shop: Shop, trained):
    """The event of the user that speaks most for the first item of the list: each one left out in turn."""
    model, dataset = trained
    best = model.recommend([shop.user], dataset, k=1, filter_viewed=True)[Columns.Item].tolist()
    events = dataset.get_raw_interactions().query("user_id == @shop.user")
    without = pd.concat([events.drop(n).assign(user_id=item) for n, item in events[Columns.Item].items()])
    users, dataset = events[Columns.Item].tolist(), Dataset.construct(without)
    scores = model.recommend(users, dataset, k=1, filter_viewed=False, items_to_recommend=best)
    return scores.loc[scores[Columns.Score].idxmin(), Columns.User]


def job_08_by_group(shop: Shop, trained):
    """HR@10 of the last event of users, of the model and of popularity, by how often training met it."""
    _, dataset = trained
    events = dataset.get_raw_interactions()
    rows, asked, _ = next(LastNSplitter(1, filter_cold_items=False).split(dataset.interactions))
    train, test = events.iloc[rows], events.iloc[asked]
    counts = test.set_index(Columns.User)[Columns.Item].map(train[Columns.Item].value_counts()).fillna(0)
    groups = pd.cut(counts, [-1, 0, 6, 50, np.inf], labels=["unseen", "cold", "median", "warm"])
    users, dataset, result = test[Columns.User].tolist(), Dataset.construct(train), {}
    models = {"model": SASRecModel(n_factors=64, session_max_len=20, epochs=shop.epochs), "popularity": PopularModel()}
    for name, model in models.items():
        model.fit(dataset)
        lists = model.recommend(users, dataset, k=10, filter_viewed=True, on_unsupported_targets="ignore")
        hits = HitRate(10).calc_per_user(lists, test)
        result[name] = {"all": hits.mean(), **hits.groupby(groups, observed=True).mean()}
    return result


def job_09_elsewhere(shop: Shop, trained):
    """Saves the model; another process loads it and gives the list of job 3."""
    model, _ = trained
    model.save(shop.folder / "sasrec.saved")
    return job_03_history(shop, trained), elsewhere(f"""
        import pandas as pd
        from rectools.dataset import Dataset
        from rectools.models import load_model
        model = load_model({str(shop.folder / "sasrec.saved")!r})
        events = pd.DataFrame({{"user_id": "visitor", "item_id": {shop.history!r}, "weight": 1, "datetime": range(5)}})
        lists = model.recommend(["visitor"], Dataset.construct(events), k=10, filter_viewed=True)
        answer = lists["item_id"].tolist()
    """)


def job_10_next_week(shop: Shop, trained):
    """It cannot be done: `fit_partial` goes on with the data of `fit` alone ("currently new datasets is not supported",
    says its source), and so do those of ALS and LightFM (issues 242 and 243)."""
