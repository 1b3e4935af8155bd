"""The jobs with implicit: ALS, and pandas and SciPy for ids and matrices."""

import numpy as np
import pandas as pd
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.first_day.jobs import Shop, elsewhere


def job_01_train(shop: Shop):
    """Reads both tables and trains."""
    events, items = pd.read_csv(shop.events), pd.Index(pd.read_csv(shop.items)["item"])
    users = pd.Index(events["user"].unique())
    cells = users.get_indexer(events["user"]), items.get_indexer(events["item"])
    met = csr_matrix((np.ones(len(events), np.float32), cells), shape=(len(users), len(items)))
    model = AlternatingLeastSquares(factors=64, random_state=0)
    model.fit(met, show_progress=False)
    return model, met, users, items


def job_02_lists(shop: Shop, trained):
    """A file with ten items for every user, and for one without events."""
    model, met, users, items = trained
    numbers, _ = model.recommend(np.arange(len(users)), met)
    popular = np.argsort(-np.bincount(met.indices, minlength=len(items)))[:10]
    listed = items[np.vstack([numbers, popular]).ravel()]
    lists = pd.DataFrame({"user": np.repeat([*users, shop.newcomer], 10), "item": listed})
    lists.to_csv(shop.folder / "lists.csv", index=False)
    return shop.folder / "lists.csv"


def job_03_history(shop: Shop, trained):
    """A list for a history that is no user's."""
    model, _, _, items = trained
    columns = items.get_indexer(shop.history)
    history = csr_matrix((np.ones(len(columns), np.float32), ([0] * len(columns), columns)), shape=(1, len(items)))
    return items[model.recommend(0, history, recalculate_user=True)[0]].tolist()


def job_04_new_item(shop: Shop, trained):
    """Two items without events are candidates, by their titles and genres: the mean factors of the 20 nearest."""
    model, _, users, items = trained
    known, new = pd.read_csv(shop.items), pd.read_csv(shop.new)
    words = TfidfVectorizer().fit(known["title"] + " " + known["genres"])
    known_words, new_words = (words.transform(table["title"] + " " + table["genres"]) for table in (known, new))
    nearest = np.argsort(-(new_words @ known_words.T).toarray(), axis=1)[:, :20]
    factors = np.vstack([model.item_factors, model.item_factors[nearest].mean(axis=1)])
    columns = items.append(pd.Index(new["item"])).get_indexer(shop.candidates)
    scores = factors[columns] @ model.user_factors[users.get_loc(shop.user)]
    return [shop.candidates[n] for n in np.argsort(-scores)]


def job_05_in_stock(shop: Shop, trained):
    """A list of what is in stock."""
    model, met, users, items = trained
    user = users.get_loc(shop.user)
    return items[model.recommend(user, met[user], items=items.get_indexer(shop.stock))[0]].tolist()


def job_06_similar(shop: Shop, trained):
    """The ten items most like one."""
    model, _, _, items = trained
    return items[model.similar_items(items.get_loc(shop.item), N=11)[0][1:]].tolist()


def job_07_because(shop: Shop, trained):
    """The event of the user that speaks most for the first item of the list."""
    model, met, users, items = trained
    user = users.get_loc(shop.user)
    best = model.recommend(user, met[user], N=1)[0][0]
    return items[model.explain(user, met, best, N=1)[1][0][0]]


def job_08_by_group(shop: Shop, trained):
    """HR@10 of the last event of users, of the model and of popularity, by how often training met it."""
    _, _, users, items = trained
    events = pd.read_csv(shop.events).sort_values("time", kind="stable")
    events = events.assign(row=users.get_indexer(events["user"]), column=items.get_indexer(events["item"]))
    last = events[events.duplicated("user") & ~events.duplicated("user", keep="last")]
    rest = events.drop(last.index)
    cells = np.ones(len(rest), np.float32), (rest["row"], rest["column"])
    met = csr_matrix(cells, shape=(len(users), len(items)))
    model = AlternatingLeastSquares(factors=64, random_state=0)
    model.fit(met, show_progress=False)
    counts = np.bincount(rest["column"], minlength=len(items))
    order = np.argsort(-counts)
    popular = [order[~np.isin(order, met[row].indices)][:10] for row in last["row"]]
    lists = {"model": model.recommend(last["row"], met[last["row"]])[0], "popularity": np.array(popular)}
    target = last["column"].to_numpy()
    groups = pd.cut(counts[target], [-1, 0, 6, 50, np.inf], labels=["unseen", "cold", "median", "warm"])
    hits = {name: pd.Series((found == target[:, None]).any(axis=1)) for name, found in lists.items()}
    return {name: {"all": hit.mean(), **hit.groupby(groups, observed=True).mean()} for name, hit in hits.items()}


def job_09_elsewhere(shop: Shop, trained):
    """Saves the model; another process loads it and gives the list of job 3."""
    model, _, _, items = trained
    model.save(shop.folder / "als.npz")
    items.to_frame().to_csv(shop.folder / "ids.csv", index=False)
    return job_03_history(shop, trained), elsewhere(f"""
        import numpy as np
        import pandas as pd
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        model = AlternatingLeastSquares.load({str(shop.folder / "als.npz")!r})
        items = pd.Index(pd.read_csv({str(shop.folder / "ids.csv")!r})["item"])
        columns = items.get_indexer({shop.history!r})
        history = csr_matrix((np.ones(len(columns), np.float32), ([0] * len(columns), columns)), shape=(1, len(items)))
        answer = items[model.recommend(0, history, recalculate_user=True)[0]].tolist()
    """)


def job_10_next_week(shop: Shop, trained):
    """Goes on from the model with the events of another week, and gives a list to a user who came in it."""
    model, met, users, items = trained
    later = pd.read_csv(shop.later)
    users = users.append(pd.Index(later["user"].unique()).difference(users))
    cells = users.get_indexer(later["user"]), items.get_indexer(later["item"])
    more = csr_matrix((np.ones(len(later), np.float32), cells), shape=(len(users), len(items)))
    met = vstack([met, csr_matrix((len(users) - met.shape[0], len(items)), dtype=np.float32)], format="csr") + more
    model.partial_fit_users(np.unique(cells[0]), met[np.unique(cells[0])])
    model.partial_fit_items(np.unique(cells[1]), met.T.tocsr()[np.unique(cells[1])])
    user = users.get_loc(shop.arrival)
    return items[model.recommend(user, met[user])[0]].tolist()
