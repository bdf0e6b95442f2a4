from __future__ import annotations

import torch
from modalbind_audio.options import FramesOptions
from modalbind_audio.pooling import Pooling, masked_statistics, segment_weights


def test_segments_by_loop():
    mask = torch.arange(11) < torch.tensor([[10], [3]])
    x = torch.randn(2, 11, 4)
    found = segment_weights(mask, 5) @ x
    # Ten frames in five stretches: two each.
    for part in range(5):
        torch.testing.assert_close(found[0, part], x[0, 2 * part : 2 * part + 2].mean(0))
    # Three frames in five stretches of 0.6: the second has 0.4 of frame 0 and 0.2 of frame 1.
    expected = (0.4 * x[1, 0] + 0.2 * x[1, 1]) / 0.6
    torch.testing.assert_close(found[1, 1], expected)


def test_mean_and_deviation_by_loop():
    pooling = Pooling(FramesOptions(width=8, pooling="mean_std"))
    x, mask = torch.randn(1, 6, 8), torch.arange(6).unsqueeze(0) < 4
    found = pooling(x, mask)[0]
    torch.testing.assert_close(found[:8], x[0, :4].mean(0))
    deviation = (x[0, :4].var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(found[8:], deviation)


def test_statistics_by_loop_and_blind_to_padding():
    x = torch.randn(2, 6, 3)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    filled = x.masked_fill(~mask.unsqueeze(-1), 1e6)
    found = masked_statistics(filled, mask)
    for row, length in enumerate((6, 4)):
        real = x[row, :length]
        deviation = (real.var(0, unbiased=False) + 1e-5).sqrt()
        expected = torch.cat([real.mean(0), deviation, real.amax(0)])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked_statistics(x[:1], None), found[:1])
