"""What encoders share: do the features fit."""

from __future__ import annotations

from modalbind.api import InputError, Modality
from modalbind_audio.options import AudioOptions


def audio_options(modality: Modality) -> AudioOptions:
    """Return the options of the audio modality that an encoder is built for.

    Raises:
        InputError: If it is another modality.
    """
    options = getattr(modality, "options", None)
    if not isinstance(options, AudioOptions):
        raise InputError(
            f"an encoder for audio; the modality is {type(modality).__name__}; choose its own"
        )
    return options


def check_features(encoder: str, wanted: str, modality: Modality) -> AudioOptions:
    """Refuse an encoder whose input the modality does not make.

    Raises:
        InputError: Naming the option to set.
    """
    options = audio_options(modality)
    if options.features != wanted:
        raise InputError(
            f"encoder {encoder!r} takes {wanted}; modality.options.features is "
            f"{options.features}; set modality.options.features={wanted}"
        )
    return options


def check_mels(encoder: str, mels: int, modality: Modality) -> AudioOptions:
    """Refuse an encoder that takes log-mel of another height.

    Raises:
        InputError: Naming the option to set.
    """
    options = check_features(encoder, "fbank", modality)
    if options.mels != mels:
        raise InputError(
            f"encoder {encoder!r} takes {mels} mel filters; modality.options.mels is "
            f"{options.mels}; make them equal"
        )
    return options


def frame_width(encoder: str, table_width: int, modality: Modality) -> int:
    """Return how many values a frame has: log-mel says its own, a table's is an option.

    Raises:
        InputError: If the modality makes waveforms, which have no frames.
    """
    options = audio_options(modality)
    if options.features == "waveform":
        raise InputError(
            f"encoder {encoder!r} takes frames; modality.options.features is waveform; "
            "set modality.options.features=table or fbank"
        )
    return options.mels if options.features == "fbank" else table_width
