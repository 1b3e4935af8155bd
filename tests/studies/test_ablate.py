"""Rows of the ablation."""

from pad_jax.studies import ablate


def test_rows_of_an_ablation_are_what_pad_is_not(make_config):
    names = {row.name for row in ablate.rows(make_config("best"))}
    assert {"laplacian", "cosine_paper", "InfoNCE", "gate shared", "gate bucket"} <= names
    assert not {"gaussian", "gate bucket_emb"} & names
    other = {row.name for row in ablate.rows(make_config("best", **{"mmd.kernel": "laplacian"}))}
    assert "gaussian" in other
    assert "laplacian" not in other
    config = make_config("best")
    folders = [row.folder(config, 0) for row in ablate.rows(config)]
    assert len(set(folders)) == len(folders)
    assert "pad-sasrec-ce-best-s0,mmd.kernel=laplacian" in folders
