"""Ids with every awkward shape that the published tables hold."""

from __future__ import annotations

import pytest
from modalbind_audio.datasets.youtube import split_clip_id


@pytest.mark.parametrize(
    ("clip_id", "expected"),
    [
        ("r1nicOVtvkQ", ("r1nicOVtvkQ", "")),
        ("Yr1nicOVtvkQ", ("r1nicOVtvkQ", "")),
        ("Yr1nicOVtvkQ.wav", ("r1nicOVtvkQ", "")),
        ("Y---1_cCGK4M", ("---1_cCGK4M", "")),
        ("YPislCydAPQ", ("YPislCydAPQ", "")),  # an id that begins with Y
        ("YPislCydAPQ_000030", ("YPislCydAPQ", "000030")),
        ("YYPislCydAPQ", ("YPislCydAPQ", "")),
        ("OxPnZzn1_L8_000883", ("OxPnZzn1_L8", "000883")),
        ("9eUrEyAR3xk_84_10", ("9eUrEyAR3xk", "84")),
        ("_7Xe9vD3Hpg_4_10.flac", ("_7Xe9vD3Hpg", "4")),
        ("--cB2ZVjpnA_30.000", ("--cB2ZVjpnA", "30.000")),
        ("abcdefghi_3", ("abcdefghi_3", "")),
        ("something else", ("something else", "")),
    ],
)
def test_ids_are_split_as_published(clip_id, expected):
    assert split_clip_id(clip_id) == expected


def test_every_id_survives_every_spelling():
    for video in ("Y1234567890", "abcdefghi_1", "_bcdefghij_", "-----------", "Yab_12_34_5"):
        for spelling in ("{}", "Y{}", "{}_30", "{}_30_40", "Y{}.wav", "Y{}_30"):
            assert split_clip_id(spelling.format(video))[0] == video
