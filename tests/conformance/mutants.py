"""Plugins that break one promise each: the good plugin of this folder with one thing changed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

GOOD = Path(__file__).parent / "sonar"
PACKAGE = "modalbind_sonar"


@dataclass(frozen=True)
class Mutant:
    """One change of the good plugin.

    Attributes:
        name: What it does wrong.
        check: The one check that it must fail.
        subject: Of which subject.
        file: What is changed.
        old: Text that stands there once.
        new: What takes its place.
    """

    name: str
    check: str
    subject: str
    file: str
    old: str
    new: str


INIT = "__init__.py"
MODALITY, ENCODER, DATASET = "modality sonar", "encoder echo", "dataset seabed"
PLUGIN, CHART, HAIL = "plugin sonar", "anchor chart", "objective hail"

MUTANTS = (
    # What importing it does.
    Mutant(
        "imports torch at registration",
        "registration.light-import",
        PLUGIN,
        INIT,
        "from modalbind_sonar import options\n",
        "from modalbind_sonar import modality, options\n",
    ),
    Mutant(
        "opens a connection when imported",
        "registration.no-network",
        PLUGIN,
        INIT,
        "from modalbind_sonar import options\n",
        "from modalbind_sonar import options\n\n"
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n"
        "    socket.create_connection(('127.0.0.1', 9), 0.1).close()\n",
    ),
    Mutant(
        "writes a file when imported",
        "registration.no-files",
        PLUGIN,
        INIT,
        "from modalbind_sonar import options\n",
        "from modalbind_sonar import options\n\nopen(__file__ + '.log', 'w').close()\n",
    ),
    Mutant(
        "takes its time when imported",
        "registration.import-time",
        PLUGIN,
        INIT,
        "from modalbind_sonar import options\n",
        "from modalbind_sonar import options\n\nimport time\n\n"
        "if __import__('sys').argv[-1] == 'modalbind_sonar':\n    time.sleep(6)\n",
    ),
    Mutant(
        "caps the version of modalbind",
        "registration.metadata",
        PLUGIN,
        "METADATA",
        "modalbind>=0.1",
        "modalbind>=0.1,<9",
    ),
    Mutant(
        "has a mistake in a recipe",
        "registration.recipes",
        PLUGIN,
        "recipes/sonar/default.yaml",
        "epochs:",
        "epoch:",
    ),
    Mutant(
        "does not describe an option",
        "registration.options",
        ENCODER,
        "options.py",
        'description="Width of the hidden states."',
        'description=""',
    ),
    Mutant(
        "does not say the unit of an option",
        "registration.options",
        MODALITY,
        "options.py",
        "    window_s: float",
        "    window: float = Field(default=1.0, description='Longest stretch.')\n"
        "    window_s: float",
    ),
    Mutant(
        "names a factory that is not there",
        "registration.factory",
        HAIL,
        INIT,
        "modalbind_sonar.hail:Hail",
        "modalbind_sonar.hail:Hale",
    ),
    # The modality.
    Mutant(
        "makes float64 features",
        "modality.features",
        MODALITY,
        "modality.py",
        "self.silence)\n",
        "self.silence).double()\n",
    ),
    Mutant(
        "renders at random",
        "modality.repeats",
        MODALITY,
        "modality.py",
        "torch.randn(length, WIDTH, generator=generator)",
        "torch.randn(length, WIDTH)",
    ),
    Mutant(
        "changes its sample",
        "modality.leaves-sample",
        MODALITY,
        "modality.py",
        "sample.echo.masked_fill(",
        "sample.echo.masked_fill_(",
    ),
    Mutant(
        "cannot be pickled",
        "modality.picklable",
        MODALITY,
        "modality.py",
        "        self.silence = 0.0\n",
        "        self.silence = 0.0\n        self.hook = lambda: None\n",
    ),
    Mutant(
        "makes other features in a worker",
        "modality.workers",
        MODALITY,
        "modality.py",
        "self.silence)\n",
        "self.silence) * (2 if torch.utils.data.get_worker_info() else 1)\n",
    ),
    Mutant(
        "cuts windows backwards",
        "modality.windows",
        MODALITY,
        "modality.py",
        "                at / RATE_HZ,\n",
        "                -at / RATE_HZ - 1.0,\n",
    ),
    Mutant(
        "describes a sample by no number",
        "modality.describe",
        MODALITY,
        "modality.py",
        '{"duration_s": len(sample.echo) / RATE_HZ}',
        '{"duration_s": math.nan}',
    ),
    Mutant(
        "hashes a file's place",
        "modality.content-hash",
        MODALITY,
        "modality.py",
        "hashlib.sha256(path.read_bytes())",
        "hashlib.sha256(path.read_bytes() + str(path).encode())",
    ),
    Mutant(
        "gives a random sample for a broken file",
        "modality.bad-files",
        MODALITY,
        "modality.py",
        '            raise BrokenSampleError("undecodable", f"{path}: {error}") from None\n',
        "            rows = torch.randn(6, WIDTH).tolist()\n",
    ),
    Mutant(
        "raises what it happens to raise on a foreign sample",
        "modality.odd-samples",
        MODALITY,
        "modality.py",
        "    def features(self, sample: Ping) -> torch.Tensor:\n        check(sample)\n",
        "    def features(self, sample: Ping) -> torch.Tensor:\n",
    ),
    Mutant(
        "cannot be built from its quick start",
        "modality.builds",
        MODALITY,
        "modality.py",
        "        self.silence = 0.0\n",
        "        self.silence = options.silence\n",
    ),
    # The encoder.
    Mutant(
        "lists its LoRA targets",
        "encoder.builds",
        ENCODER,
        "encoder.py",
        '("first", "second")',
        '["first", "second"]',
    ),
    Mutant(
        "is not normalised: too large for float32",
        "encoder.unit-norm",
        ENCODER,
        "encoder.py",
        "weights.sum(dim=1)).float()",
        "weights.sum(dim=1)).float() * 1e30",
    ),
    Mutant(
        "leaves dropout on in eval mode",
        "encoder.eval-is-fixed",
        ENCODER,
        "encoder.py",
        "self.dropout(self.first(features).tanh())",
        "nn.functional.dropout(self.first(features).tanh(), 0.2, training=True)",
    ),
    Mutant(
        "stays in training mode once trained",
        "encoder.eval-after-train",
        ENCODER,
        "encoder.py",
        "        hidden = self.second(hidden)\n",
        "        self.__dict__['seen'] = self.__dict__.get('seen', False) or self.training\n"
        "        hidden = self.second(nn.functional.dropout(hidden, 0.2, self.seen))\n",
    ),
    Mutant(
        "is detached below its last layer",
        "encoder.gradient",
        ENCODER,
        "encoder.py",
        "self.second(hidden)",
        "self.second(hidden.detach())",
    ),
    Mutant(
        "has another width than it says",
        "encoder.output",
        ENCODER,
        "encoder.py",
        "        self.width = options.width\n",
        "        self.width = options.width + 1\n",
    ),
    Mutant(
        "does not pool over time",
        "encoder.output",
        ENCODER,
        "encoder.py",
        "((hidden * weights).sum(dim=1) / weights.sum(dim=1))",
        "(hidden * weights)",
    ),
    Mutant(
        "embeds all samples alike",
        "encoder.tells-apart",
        ENCODER,
        "encoder.py",
        "self.second(hidden)",
        "self.second(hidden * 0)",
    ),
    Mutant(
        "depends on the order of the batch",
        "encoder.order",
        ENCODER,
        "encoder.py",
        "self.second(hidden)",
        "self.second(hidden + torch.arange(len(hidden)).view(-1, 1, 1))",
    ),
    Mutant(
        "depends on the rest of the batch",
        "encoder.batch",
        ENCODER,
        "encoder.py",
        "self.second(hidden)",
        "self.second(nn.functional.batch_norm(hidden.mT, None, None, training=True).mT)",
    ),
    Mutant(
        "depends on padding",
        "encoder.padding",
        ENCODER,
        "encoder.py",
        "((hidden * weights).sum(dim=1) / weights.sum(dim=1))",
        "hidden.mean(dim=1)",
    ),
    Mutant(
        "changes its input",
        "encoder.leaves-input",
        ENCODER,
        "encoder.py",
        "self.first(features)",
        "self.first(features.clamp_(-0.5, 0.5))",
    ),
    Mutant(
        "loses its digits in bfloat16",
        "encoder.half-precision",
        ENCODER,
        "encoder.py",
        "self.second(hidden)",
        "self.second(hidden) + 1000 - 1000",
    ),
    Mutant(
        "keeps a weight out of its state",
        "encoder.save-load",
        ENCODER,
        "encoder.py",
        "        self.dropout = nn.Dropout(options.dropout)\n",
        "        self.dropout = nn.Dropout(options.dropout)\n"
        "        gain = 0.5 + torch.rand(options.width)\n"
        "        self.second.register_forward_hook(lambda module, given, out: out * gain)\n",
    ),
    Mutant(
        "has a layer in two groups",
        "encoder.layer-groups",
        ENCODER,
        "encoder.py",
        "[[self.first], [self.second]]",
        "[[self.first], [self.first, self.second]]",
    ),
    Mutant(
        "forgets a layer in its groups",
        "encoder.layer-groups",
        ENCODER,
        "encoder.py",
        "[[self.first], [self.second]]",
        "[[self.first]]",
    ),
    Mutant(
        "misspells a LoRA target",
        "encoder.lora-targets",
        ENCODER,
        "encoder.py",
        '("first", "second")',
        '("first", "third")',
    ),
    Mutant(
        "cannot take a single step",
        "encoder.odd-samples",
        ENCODER,
        "encoder.py",
        "        hidden = self.second(hidden)\n",
        "        hidden = self.second(hidden) + 0 * hidden[:, 1].unsqueeze(1)\n",
    ),
    # Augmentations.
    Mutant(
        "builds nothing",
        "augmentation.builds",
        "augmentation crackle",
        "augment.py",
        "    return crackle\n",
        "    return None\n",
    ),
    Mutant(
        "draws from the global state",
        "augmentation.seeded",
        "augmentation crackle",
        "augment.py",
        "torch.randn(features.shape, generator=generator)",
        "torch.randn(features.shape)",
    ),
    Mutant(
        "drops the mask of a sample",
        "augmentation.keeps-form",
        "augmentation hiss",
        "augment.py",
        "replace(sample, echo=sample.echo + noise)",
        "replace(sample, echo=sample.echo + noise, heard=None)",
    ),
    Mutant(
        "drops the mask of a batch",
        "augmentation.keeps-form",
        "augmentation swell",
        "augment.py",
        "replace(batch, features=",
        "replace(batch, valid_mask=None, features=",
    ),
    Mutant(
        "changes its argument",
        "augmentation.leaves-argument",
        "augmentation hiss",
        "augment.py",
        "echo=sample.echo + noise",
        "echo=sample.echo.add_(noise)",
    ),
    Mutant(
        "makes features infinite",
        "augmentation.finite",
        "augmentation crackle",
        "augment.py",
        "features + options.level_pa",
        "features / 0 + options.level_pa",
    ),
    # The data set.
    Mutant(
        "has no name",
        "dataset.builds",
        DATASET,
        "seabed.py",
        'name = "seabed"',
        'name = ""',
    ),
    Mutant(
        "leaks groups from split to split",
        "dataset.groups",
        DATASET,
        "seabed.py",
        "group=key",
        "group=text",
    ),
    Mutant(
        "orders its pairs at random",
        "dataset.repeats",
        DATASET,
        "seabed.py",
        "        return rows\n",
        "        return sorted(rows, key=lambda row: torch.rand(1).item())\n",
    ),
    Mutant(
        "gives another sample for a broken one",
        "dataset.broken-samples",
        DATASET,
        "seabed.py",
        "        return modality.render(scene, 1)\n",
        "        try:\n"
        "            return modality.render(scene, 1)\n"
        "        except BrokenSampleError:\n"
        "            return []\n",
    ),
    Mutant(
        "gives one sample for several keys",
        "dataset.loads",
        DATASET,
        "seabed.py",
        '            *words, number = key.split("-")\n',
        '            key = "rock-small-iron-0" if key[:4] in ("barr", "rock") else key\n'
        '            *words, number = key.split("-")\n',
    ),
    Mutant(
        "hashes too short",
        "dataset.hashes",
        DATASET,
        "seabed.py",
        "return hashlib.sha256(key.encode()).digest()\n\n    def anchor_item",
        "return hashlib.md5(key.encode()).digest()\n\n    def anchor_item",
    ),
    Mutant(
        "hashes anchor-side items too short",
        "dataset.anchor-items",
        DATASET,
        "seabed.py",
        "AnchorItem(key, hashlib.sha256(",
        "AnchorItem(key, hashlib.md5(",
    ),
    # The anchor space.
    Mutant(
        "lists its modalities",
        "anchor.builds",
        CHART,
        "chart.py",
        'modalities = ("text",)',
        'modalities = ["text"]',
    ),
    Mutant(
        "does not normalise the anchor embeddings",
        "anchor.unit-norm",
        CHART,
        "chart.py",
        "F.normalize(torch.stack(rows), dim=1)",
        "torch.stack(rows)",
    ),
    Mutant(
        "centres anchor embeddings in their batch",
        "anchor.batch",
        CHART,
        "chart.py",
        "torch.stack(rows), dim=1",
        "torch.stack(rows) - 0.1 * torch.stack(rows).mean(dim=0), dim=1",
    ),
    Mutant(
        "has another fingerprint each time",
        "anchor.fingerprint",
        CHART,
        "chart.py",
        'hashlib.sha256(b"chart, version 1")',
        "hashlib.sha256(str(id(self)).encode() + str(torch.rand(1)).encode())",
    ),
    Mutant(
        "embeds what it does not hold",
        "anchor.refuses",
        CHART,
        "chart.py",
        'if modality != "text":',
        'if modality == "image":',
    ),
    # The objective.
    Mutant(
        "takes a batch for square",
        "objective.loss",
        HAIL,
        "hail.py",
        "        asks = positives",
        "        losses = losses + 0 * logits.diagonal()[: len(losses)].view(len(losses))\n"
        "        asks = positives",
    ),
    Mutant(
        "moves the anchor embeddings",
        "objective.gradient",
        HAIL,
        "hail.py",
        "anchor.detach()",
        "anchor",
    ),
    Mutant(
        "takes excluded columns for negatives",
        "objective.excluded",
        HAIL,
        "hail.py",
        '        logits = logits.masked_fill(excluded, float("-inf"))\n',
        "",
    ),
    Mutant(
        "prefers what does not match",
        "objective.prefers-pairs",
        HAIL,
        "hail.py",
        "logits = scale * modality",
        "logits = -scale * modality",
    ),
    Mutant(
        "starts above its largest scale",
        "objective.scale",
        HAIL,
        "hail.py",
        "max_scale = 100.0",
        "max_scale = 5.0",
    ),
)

DEAF = Mutant(
    "hears nothing of what it is to tell",
    "quickstart.learns",
    MODALITY,
    "modality.py",
    'echo = scene["code"] + 0.4 * torch.randn(',
    'generator.manual_seed(int(1e4 * scene["code"].abs().sum()) + scene["number"])\n'
    "        echo = torch.randn(",
)
"""Takes two runs to find out, so it has a test of its own."""


def write(folder: Path, mutant: Mutant | None = None) -> None:
    """Write the good plugin, or a mutant of it, into a folder that goes on the path."""
    shutil.copytree(GOOD, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is None:
        return
    inside = folder / (f"{PACKAGE}-1.2.dist-info" if mutant.file == "METADATA" else PACKAGE)
    path = inside / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: {text.count(mutant.old)} places"
    path.write_text(text.replace(mutant.old, mutant.new))
