"""The report: its layout, its files, what a person sees, and what several runs say together."""

from __future__ import annotations

import io
import json
import math
import os
import re
from html.parser import HTMLParser

import pytest
from pydantic import ValidationError
from rich.console import Console

from modalbind.errors import AnchorMismatchError, RunError
from modalbind.evaluation import MetricScore
from modalbind.report import (
    AnchorReport,
    CostReport,
    DataReport,
    EnvironmentReport,
    GapRow,
    LossPoint,
    Metric,
    RetrievalMetrics,
    RetrievalRow,
    RunReport,
    ZeroShotMetrics,
    ZeroShotRow,
    read_report,
    read_summary,
    render_summary_terminal,
    render_terminal,
    summarise,
    write_report,
    write_summary,
)
from modalbind.report.html import render_html

NAMES = (
    *(f"{kind}_at_{k}" for kind in ("recall", "hit") for k in (1, 5, 10)),
    "map_at_10",
)


def make_metric(value, half=0.02, chance=0.04):
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Metric(value=value, chance=chance, ci95=(low, high))


def make_row(value=0.8, half=0.02, n=256, **fields):
    return RetrievalRow(
        **{
            "query": "audio",
            "target": "text",
            "language": "en",
            "split": "test",
            "trained": True,
            "n_queries": n,
            "n_targets": 256,
            "metrics": RetrievalMetrics(
                **{name: make_metric(value, half) for name in NAMES}, median_rank=2.0
            ),
            **fields,
        }
    )


def make_report(rows=None, seed=0, fold=None, **fields):
    rows = rows or (
        make_row(),
        make_row(0.7, language="de", trained=False),
        make_row(0.6, language=None, target="image", trained=False),
        make_row(0.9, query="text", target="image", trained=False, reference=True),
        make_row(0.05, control="shuffled"),
        make_row(0.01, half=0.01, control="trivial", language="de", trained=False),
    )
    return RunReport(
        **{
            "name": "audio-quickstart",
            "command": "modalbind align --modality audio",
            "anchor": AnchorReport(
                space="openclip:world",
                fingerprint="f" * 64,
                fingerprint_after="f" * 64,
                verified="weights",
                dim=128,
                modalities=("text", "image"),
            ),
            "data": DataReport(
                name="world",
                licence="CC0-1.0",
                train_pairs=4096,
                test_pairs=256,
                overlap=0,
                skipped={"truncated": 3},
                train_languages=("en",),
                fold=fold,
            ),
            "retrieval": tuple(rows),
            "zero_shot": (
                ZeroShotRow(
                    modality="audio",
                    dataset="esc10",
                    language="en",
                    n_items=80,
                    n_classes=10,
                    metrics=ZeroShotMetrics(top1=make_metric(0.8, 0.09, 0.1)),
                ),
            ),
            "gap": (
                GapRow(
                    modality_a="audio",
                    modality_b="text",
                    centroid_distance=0.4,
                    alignment=0.6,
                    uniformity=-2.9,
                ),
            ),
            "cost": CostReport(
                seconds=48.2,
                cpu_seconds=90.0,
                pairs_seen=40960,
                anchor_embeddings_computed=5120,
                anchor_embeddings_reused=7,
                peak_rss_mib=812.0,
            ),
            "environment": EnvironmentReport(versions={"torch": "2.9"}, seed=seed, device="cpu"),
            "loss": tuple(
                LossPoint(step=i, loss=4 - i / 500, chance_loss=math.log(64))
                for i in range(1, 1201)
            ),
            "recipe": {"train": {"epochs": 3}},
            **fields,
        }
    )


def test_an_overlap_that_was_not_checked_is_not_told_as_none():
    report = make_report()
    data = report.data.model_copy(update={"overlap": None})
    page = render_html(report.model_copy(update={"data": data}))
    assert "not checked" in page
    assert "not checked" not in render_html(report)


def test_layout_of_the_file(tmp_path):
    write_report(make_report(), tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["format"] == 1
    assert set(found["anchor"]) == {
        "space", "fingerprint", "fingerprint_after", "verified", "dim", "modalities"
    }  # fmt: skip
    assert {"name", "licence", "train_pairs", "test_pairs", "overlap", "skipped"} <= set(
        found["data"]
    )
    row = found["retrieval"][0]
    assert {
        "query", "target", "language", "split", "trained", "control", "n_queries", "n_targets",
        "metrics",
    } <= set(row)  # fmt: skip
    assert set(row["metrics"]) == {*NAMES, "median_rank"}
    assert set(row["metrics"]["recall_at_10"]) == {"value", "chance", "ci95"}
    assert row["metrics"]["median_rank"] == 2.0
    assert set(found["zero_shot"][0]["metrics"]["top1"]) == {"value", "chance", "ci95"}
    assert set(found["gap"][0]) == {
        "modality_a", "modality_b", "centroid_distance", "alignment", "uniformity"
    }  # fmt: skip
    assert set(found["cost"]) == {
        "seconds", "cpu_seconds", "kwh", "pairs_seen", "anchor_embeddings_computed",
        "anchor_embeddings_reused", "peak_rss_mib", "stages",
    }  # fmt: skip
    assert set(found["environment"]) == {"versions", "seed", "commit", "device"}


def test_round_trip(tmp_path):
    report = make_report()
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert read_report(tmp_path / "report.json") == report
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json"]


def test_scores_of_the_evaluation_fit():
    score = MetricScore(0.5, 0.1, (0.4, 0.6))
    metrics = RetrievalMetrics.model_validate({**dict.fromkeys(NAMES, score), "median_rank": 3.0})
    assert metrics.hit_at_5 == Metric(value=0.5, chance=0.1, ci95=(0.4, 0.6))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_cannot_be_reported(bad):
    with pytest.raises(ValidationError, match="finite"):
        Metric(value=bad, chance=0.1, ci95=(0.0, 1.0))


def test_unknown_parts_cannot_be_reported():
    with pytest.raises(ValidationError, match="extra"):
        make_report(surprise=1)


def test_unreadable_reports_say_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"No such file.*modalbind evaluate"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"format": 2}')
    with pytest.raises(RunError, match="format: "):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(RunError, match="the file: Invalid JSON"):
        read_report(tmp_path)
    assert "\n" not in str(RunError("x"))


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    write_report(make_report(), tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_report(make_report(name="other"), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["report.html", "report.json"]


def test_verdicts():
    assert make_metric(0.8).verdict == ""
    assert make_metric(0.05).verdict == "at chance"
    assert make_metric(0.01, half=0.01).verdict == "below chance"
    assert make_metric(1.0, chance=1.0).verdict == "chance is 1"


def test_a_pool_of_ten_is_not_counted_as_at_chance():
    """Recall@10 of a pool of at most ten is 1 whatever the embeddings are."""
    small = make_row(0.6, language=None, target="image", trained=False)
    metrics = small.metrics.model_copy(update={"recall_at_10": make_metric(1.0, chance=1.0)})
    page = render_html(make_report((make_row(), small.model_copy(update={"metrics": metrics}))))
    assert "1 of 1" in page and "0 of 1" not in page
    assert "chance is 1" in page


def test_groups_of_rows():
    groups = [row.group for row in make_report().retrieval]
    assert groups == ["trained", "emergent", "emergent", "anchor", "control", "control"]


class Outline(HTMLParser):
    """Collects tags, links and text, and fails on tags that do not close."""

    VOID = frozenset({"meta", "line", "rect", "polyline", "link", "img"})

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.outside, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action")]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(path):
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    assert not parser.stack
    return parser


def test_html_is_whole_and_needs_nothing_else(tmp_path):
    write_report(make_report(), tmp_path)
    page = outline(tmp_path / "report.html")
    assert not page.outside
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", " ".join(page.text))
    for said in (
        "Emergent: never paired in training", "at chance", "below chance", "0.780\u20130.820",
        "The anchor did not move", "f" * 64, "CC0-1.0", "3 truncated", "torch 2.9",
        "modalbind align --modality audio", "5,120 computed, 7 reused", "not measured",
        "Recall@10 by direction", "audio → text by language", "Loss in nats",
    ):  # fmt: skip
        assert said in text, said


def test_html_draws_to_scale(tmp_path):
    """Bars, whiskers and chance of one chart lie on one linear axis."""
    write_report(make_report(), tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    chart = html[html.index("Recall@10 by direction") :]
    bars = [
        (float(x), float(w))
        for x, w in re.findall(r'class="bar [^"]*" x="([\d.]+)"[^>]*? width="([\d.]+)"', chart)
    ][:6]
    left = bars[0][0]
    widths = [width for _, width in bars]
    # trained 0.8, emergent 0.6 (image; German belongs to audio → text), anchor 0.9, controls.
    values = [0.8, 0.6, 0.9, 0.05, 0.01]
    scale = widths[0] / 0.8
    for width, value in zip(widths, values, strict=False):
        assert width == pytest.approx(scale * value, abs=0.2)
    chance = float(re.search(r'class="chance" x1="([\d.]+)"', chart)[1])
    assert chance - left == pytest.approx(scale * 0.04, abs=0.2)


def test_html_escapes_what_comes_from_outside(tmp_path):
    evil = "<script>alert(1)</script>"
    report = make_report(
        rows=[make_row(query=evil, language="&<b>", split='"><i>')],
        name=evil,
        command=evil,
        recipe={"name": evil},
        notes=(evil,),
    )
    write_report(report, tmp_path)
    page = outline(tmp_path / "report.html")
    assert not {"script", "b>", "i"} & set(page.tags)
    assert any(evil in text for text in page.text)


def test_html_of_hardly_anything(tmp_path):
    report = make_report(zero_shot=(), gap=(), loss=(), recipe={}).model_copy(
        update={"retrieval": ()}
    )
    write_report(report, tmp_path)
    assert "Against chance" not in " ".join(outline(tmp_path / "report.html").text)


def test_html_shouts_if_the_anchor_moved(tmp_path):
    report = make_report()
    moved = report.anchor.model_copy(update={"fingerprint_after": "e" * 64})
    write_report(report.model_copy(update={"anchor": moved}), tmp_path)
    text = " ".join(outline(tmp_path / "report.html").text)
    assert "The anchor did MOVE" in text
    assert "CHANGED" in text


def test_long_loss_curves_are_averaged(tmp_path):
    points = [LossPoint(step=i, loss=1.0, chance_loss=2.0) for i in range(1, 20_001)]
    write_report(make_report(loss=tuple(points), recipe={}), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 100_000


def show(renderable, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_terminal_shows_every_row_in_80_columns():
    text = show(render_terminal(make_report()))
    assert "…" not in text
    for said in (
        "Trained", "Emergent", "Controls", "shuffled", "0.780..0.820", "at chance",
        "below chance", "esc10", "unchanged, by weights", "3 truncated", "centroid distance",
    ):  # fmt: skip
        assert said in text, said
    lines = [line for line in text.splitlines() if "audio → text" in line]
    assert len(lines) == 4


def test_terminal_fits_80_columns_with_every_column_at_its_widest():
    rows = [make_row(0.0, query="image", target="audio", language="sw", n=1000)]
    rows[0] = rows[0].model_copy(
        update={"metrics": rows[0].metrics.model_copy(update={"median_rank": 500.5})}
    )
    text = show(render_terminal(make_report(rows=rows)))
    assert "…" not in text
    assert " 500 " in text and "below chance" in text


def test_terminal_takes_names_literally():
    text = show(render_terminal(make_report(rows=[make_row(query="[red]x[/red]")])))
    assert "[red]x[/red] → text" in text


def test_terminal_tells_splits_apart_only_when_there_are_several():
    rows = [make_row(split="val"), make_row(split="val_unheard")]
    assert "val_unheard" in show(render_terminal(make_report(rows=rows)), width=100)
    assert "split" not in show(render_terminal(make_report()))


def test_summary_over_seeds():
    values = (0.70, 0.80, 0.75)
    summary = summarise([make_report([make_row(v, 0.03)], seed=s) for s, v in enumerate(values)])
    metric = summary.retrieval[0].metrics.recall_at_10
    assert metric.value == pytest.approx(0.75)
    assert metric.std == pytest.approx(0.05)
    assert metric.values == values
    # Student's t with 2 degrees of freedom is 4.303; items add their own half width of 0.03.
    half = math.hypot(4.303 * 0.05 / math.sqrt(3), 0.03)
    assert metric.ci95 == pytest.approx((0.75 - half, 0.75 + half))
    assert (summary.seeds, summary.n_runs, summary.retrieval[0].n_queries) == ((0, 1, 2), 3, 256)


def test_one_run_keeps_its_interval():
    metric = summarise([make_report()]).retrieval[0].metrics.recall_at_10
    assert (metric.value, metric.std) == (0.8, None)
    assert metric.ci95 == pytest.approx((0.78, 0.82))


def test_folds_are_pooled_by_their_size():
    runs = [
        make_report([make_row(0.5, 0.1, n=100)], fold="1"),
        make_report([make_row(0.8, 0.1, n=300)], fold="2"),
    ]
    summary = summarise(runs)
    metric = summary.retrieval[0].metrics.recall_at_10
    assert metric.value == pytest.approx(0.725)
    half = math.hypot(100 * 0.1, 300 * 0.1) / 400
    assert metric.ci95 == pytest.approx((0.725 - half, 0.725 + half))
    assert metric.std is None
    assert (summary.folds, summary.retrieval[0].n_queries) == (("1", "2"), 400)


def test_more_seeds_do_not_hide_that_the_items_are_few():
    runs = [make_report([make_row(0.5, 0.1)], seed=seed) for seed in range(20)]
    metric = summarise(runs).retrieval[0].metrics.recall_at_10
    assert metric.ci95 == pytest.approx((0.4, 0.6))


def test_summaries_of_what_does_not_belong_together_are_refused():
    report = make_report()
    other = report.anchor.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(AnchorMismatchError, match="one anchor space"):
        summarise([report, make_report(seed=1).model_copy(update={"anchor": other})])
    with pytest.raises(RunError, match="seed 0 fold None"):
        summarise([report, report])
    with pytest.raises(RunError, match="no runs"):
        summarise([])
    data = report.data.model_copy(update={"name": "other"})
    with pytest.raises(RunError, match="one data set; found other, world"):
        summarise([report, make_report(seed=1).model_copy(update={"data": data})])


def test_summary_on_disk_and_on_screen(tmp_path):
    summary = summarise([make_report(seed=seed) for seed in (0, 1)], name="sweep")
    write_summary(summary, tmp_path)
    assert read_summary(tmp_path) == summary
    page = outline(tmp_path / "summary.html")
    assert "seeds 0, 1" in re.sub(r"\s+", " ", " ".join(page.text))
    text = show(render_summary_terminal(summary))
    assert "…" not in text
    assert "0.800 ±0.000" in text


def test_student_points_join_the_normal_one():
    from modalbind.report.sweep import _student

    # Tables of Student's t at 0.975.
    for freedom, point in ((1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042), (120, 1.980)):
        assert _student(freedom) == pytest.approx(point, abs=3e-3)
