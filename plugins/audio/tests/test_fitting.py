from __future__ import annotations

import pytest
from modalbind_audio.fitting import audio_options

from modalbind.api import InputError


def test_another_modality_is_refused():
    with pytest.raises(InputError, match="modality is object"):
        audio_options(object())
