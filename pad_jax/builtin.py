"""Everything that the package registers: importing this module makes all names known, before a config file runs."""

# The order is that of tables and messages.
# ruff: noqa: F401
# isort: off
import pad_jax.data.amazon
import pad_jax.data.demo
import pad_jax.data.mind
import pad_jax.data.pantry
import pad_jax.data.table
import pad_jax.evaluation.lists
import pad_jax.evaluation.metrics
import pad_jax.losses.contrastive
import pad_jax.losses.mmd
import pad_jax.losses.recommendation
import pad_jax.models.sasrec
import pad_jax.models.gru4rec
import pad_jax.models.caser
import pad_jax.models.experts
import pad_jax.models.dual
import pad_jax.models.codes
import pad_jax.models.gate
import pad_jax.models.settings
import pad_jax.methods.sasrec
import pad_jax.methods.hybrid
import pad_jax.methods.morec
import pad_jax.methods.ctrl
import pad_jax.methods.make
import pad_jax.methods.disco
import pad_jax.methods.smem
import pad_jax.methods.llminit
import pad_jax.methods.letitgo
import pad_jax.methods.alphafuse
import pad_jax.methods.whitenrec
import pad_jax.methods.llmemb
import pad_jax.methods.llmesr
import pad_jax.methods.moc
import pad_jax.methods.staged
import pad_jax.methods.unlearned
import pad_jax.methods.blend
import pad_jax.methods.pad
import pad_jax.recommend
import pad_jax.search
import pad_jax.service
import pad_jax.studies.study
import pad_jax.text.settings
import pad_jax.text.transform
import pad_jax.training.loop
import pad_jax.training.optimizer
import pad_jax.training.phase
