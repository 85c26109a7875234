"""Speech-like audio from a source and a filter, for the generated demonstration corpus.

Nonsense syllables, spoken by a glottal source through formants that move from sound to sound
(Fant's source-filter model; the pulse is an LF-like derivative of the glottal flow). It isn't meant
to be understood, only to have what emotion lives in: pitch and its movement, rate and pauses,
voice quality, articulation, and a speaker's and a room's own colour. Everything is vectorised over
time; about 20 ms of work for a second of speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve, lfilter

from after_model.audio import SAMPLE_RATE

HOP = 80  # samples: the filter is updated every 5 ms
WINDOW = 2 * HOP
FFT = 512  # the window and 22 ms of a formant's ringing

# Formants in Hz of an adult male tract (after Peterson and Barney 1952), scaled by the speaker.
VOWELS = {
    "a": (730, 1090, 2440),
    "ae": (660, 1720, 2410),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
NEUTRAL_TRACT = (500.0, 1500.0, 2500.0)
HIGHER_FORMANTS = (3500.0, 4500.0, 5500.0)
BANDWIDTHS = (70.0, 90.0, 130.0, 200.0, 260.0, 320.0)


@dataclass(frozen=True)
class Phone:
    """One sound: where the formants head for, what excites them, and for how long."""

    duration_s: float
    formants: tuple[float, float, float]
    voicing: float  # amplitude of the glottal source
    aspiration: float = 0.0  # noise through the formants
    friction: float = 0.0  # noise of a constriction, a band of its own
    friction_hz: float = 4000.0
    friction_width_hz: float = 1200.0


CLOSURE_S = 0.055
_BURST_S = 0.012
# Stops close, then burst; the voiceless ones are aspirated. Their formants head for the place of
# articulation, which is what colours the vowel beside them.
CONSONANTS: dict[str, tuple[Phone, ...]] = {
    "s": (Phone(0.10, (320, 1700, 2600), 0.0, 0.0, 0.30, 6000, 1300),),
    "sh": (Phone(0.10, (320, 1900, 2500), 0.0, 0.0, 0.32, 3300, 900),),
    "f": (Phone(0.08, (340, 1100, 2300), 0.0, 0.0, 0.09, 5200, 3000),),
    "h": (Phone(0.07, (500, 1500, 2500), 0.0, 0.5),),
    "z": (Phone(0.07, (280, 1700, 2600), 0.35, 0.0, 0.14, 5800, 1300),),
    "v": (Phone(0.06, (300, 1100, 2300), 0.45, 0.0, 0.04, 5000, 2500),),
    "p": (
        Phone(CLOSURE_S, (300, 900, 2200), 0.0),
        Phone(0.03, (450, 950, 2200), 0.0, 0.4, 0.10, 900),
    ),
    "t": (
        Phone(CLOSURE_S, (300, 1750, 2600), 0.0),
        Phone(0.03, (400, 1750, 2600), 0.0, 0.3, 0.25, 4500),
    ),
    "k": (
        Phone(CLOSURE_S, (300, 2000, 2400), 0.0),
        Phone(0.04, (400, 2000, 2400), 0.0, 0.4, 0.22, 2100, 500),
    ),
    "b": (
        Phone(CLOSURE_S, (250, 900, 2200), 0.12),
        Phone(_BURST_S, (400, 950, 2200), 0.4, 0.0, 0.08, 900),
    ),
    "d": (
        Phone(CLOSURE_S, (250, 1750, 2600), 0.12),
        Phone(_BURST_S, (350, 1750, 2600), 0.4, 0.0, 0.16, 4000),
    ),
    "g": (
        Phone(CLOSURE_S, (250, 2000, 2400), 0.12),
        Phone(_BURST_S, (350, 2000, 2400), 0.4, 0.0, 0.14, 2000, 500),
    ),
    "m": (Phone(0.07, (260, 1000, 2200), 0.35),),
    "n": (Phone(0.06, (260, 1600, 2500), 0.35),),
    "l": (Phone(0.06, (350, 1200, 2700), 0.6),),
    "r": (Phone(0.06, (400, 1250, 1650), 0.6),),
    "j": (Phone(0.06, (280, 2200, 2900), 0.6),),
    "w": (Phone(0.06, (300, 750, 2200), 0.6),),
}
CODAS = ("n", "m", "s", "t", "l", "r")


@dataclass(frozen=True)
class Speaker:
    """What stays the same in all that a speaker says."""

    name: str
    tract: float  # formant scale: 1 for the male average, about 1.17 for the female
    pitch_hz: float
    formant_shift: tuple[float, float, float]  # factors on F1, F2, F3: an accent of one's own
    equalizer_db: tuple[float, float, float]  # microphone: gain at 250, 1000 and 4000 Hz
    reverberation_db: float  # level of the room's tail
    noise_db: float  # background below the speech


@dataclass(frozen=True)
class Delivery:
    """How one utterance is said; the defaults are unmarked speech."""

    syllables: int
    pitch_st: float = 0.0  # semitones from the speaker's own pitch
    pitch_range: float = 1.0  # factor on accents and declination
    rate: float = 1.0  # factor on speed
    effort: float = 0.0  # -1.5 slack and dull to 1.5 pressed and bright
    breath: float = 0.0  # -1.5 clear to 1.5 breathy
    roughness: float = 0.0  # -1.5 steady to 1.5: jitter and shimmer
    articulation: float = 1.0  # factor on the distance of vowels from the neutral tract
    smile: float = 0.0  # 1 raises the formants by 4 %, as spread lips do
    accent: float = 1.0  # factor on loudness accents, and their steepness
    final_st: float = -3.0  # pitch movement at the end of a phrase
    pause_s: float = 0.15  # between phrases


def synthesize(speaker: Speaker, delivery: Delivery, rng: np.random.Generator) -> np.ndarray:
    """One utterance: float32 [S], mono, 16 kHz, within ±1, with the room's noise around it."""
    phones, stressed, phrase = _plan(delivery, rng)
    tracks = _tracks(speaker, delivery, phones, stressed, phrase, rng)
    dry = _filter(tracks, _source(tracks, delivery, rng), delivery, rng)
    return _record(speaker, dry, rng)


@dataclass(frozen=True)
class _Tracks:
    """Controls over time, one value per hop: T hops."""

    pitch_hz: np.ndarray  # [T]
    voicing: np.ndarray  # [T]
    aspiration: np.ndarray  # [T]
    friction: np.ndarray  # [T]
    friction_hz: np.ndarray  # [T]
    friction_width_hz: np.ndarray  # [T]
    formants: np.ndarray  # [T, 6] Hz


def _plan(
    delivery: Delivery, rng: np.random.Generator
) -> tuple[list[Phone], list[float], list[int]]:
    """Sounds with the stress of their syllable (0 to 1) and the number of their phrase."""
    phones: list[Phone] = []
    stress: list[float] = []
    phrase: list[int] = []
    # One phrase, or two of which neither is shorter than two syllables.
    border = int(rng.integers(2, delivery.syllables - 1)) if delivery.syllables > 5 else 0
    beat = int(rng.integers(2, 4))
    for syllable in range(delivery.syllables):
        number = int(syllable >= border > 0)
        weight = float(rng.uniform(0.7, 1.0)) if syllable % beat == 0 else 0.0
        sounds: list[Phone] = []
        if number and syllable == border:
            sounds.append(Phone(delivery.pause_s * delivery.rate, NEUTRAL_TRACT, 0.0))
        sounds += CONSONANTS[str(rng.choice(list(CONSONANTS)))]
        vowel = VOWELS[str(rng.choice(list(VOWELS)))]
        last = syllable in (border - 1, delivery.syllables - 1)
        length = 0.095 + 0.05 * (weight > 0) + 0.06 * last
        sounds.append(Phone(length * float(rng.uniform(0.8, 1.25)), vowel, 1.0))
        if rng.random() < 0.35:
            sounds += CONSONANTS[str(rng.choice(CODAS))]
        phones += sounds
        stress += [weight] * len(sounds)
        phrase += [number] * len(sounds)
    return phones, stress, phrase


def _tracks(
    speaker: Speaker,
    delivery: Delivery,
    phones: list[Phone],
    stressed: list[float],
    phrases: list[int],
    rng: np.random.Generator,
) -> _Tracks:
    hop_s = HOP / SAMPLE_RATE
    hops = [max(1, round(p.duration_s / delivery.rate / hop_s)) for p in phones]

    def spread(values: list[float]) -> np.ndarray:
        return np.repeat(np.asarray(values, dtype=float), hops)

    stress, phrase = spread(stressed), spread([float(n) for n in phrases])
    # Loudness: accents, and a fall towards the end of each phrase.
    place = np.concatenate([np.linspace(0, 1, int((phrase == n).sum())) for n in np.unique(phrase)])
    loudness = 10 ** ((5 * delivery.accent * _smooth(stress, 0.06) - 5 * place**2) / 20)
    formants = np.stack([spread([p.formants[i] for p in phones]) for i in range(3)], axis=1)
    centre = np.asarray(NEUTRAL_TRACT)
    formants = centre + (formants - centre) * delivery.articulation
    formants *= np.asarray(speaker.formant_shift) * (1 + 0.04 * delivery.smile)
    # The window is fixed in time, so fast speech undershoots its targets.
    formants = np.stack([_smooth(formants[:, i], 0.07) for i in range(3)], axis=1)
    higher = np.broadcast_to(HIGHER_FORMANTS, (len(stress), 3))
    edge = 0.02 / max(delivery.accent, 0.5)
    return _Tracks(
        pitch_hz=_pitch(speaker, delivery, stress, place, rng),
        voicing=_smooth(spread([p.voicing for p in phones]), edge) * loudness,
        aspiration=_smooth(spread([p.aspiration for p in phones]), 0.015) * loudness,
        friction=_smooth(spread([p.friction for p in phones]), 0.01) * loudness,
        friction_hz=spread([p.friction_hz for p in phones]) * speaker.tract**0.5,
        friction_width_hz=spread([p.friction_width_hz for p in phones]),
        formants=np.concatenate([formants, higher], axis=1) * speaker.tract,
    )


def _pitch(
    speaker: Speaker,
    delivery: Delivery,
    stress: np.ndarray,
    place: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Pitch in Hz [T]: declination, accents, the phrase's end, and a slow wander."""
    accents = _smooth(stress, 0.12 / max(delivery.accent, 0.5)) * float(rng.uniform(3, 5))
    declination = 2.0 - 4.0 * place
    end = delivery.final_st * np.clip((place - 0.8) / 0.2, 0, 1)
    wander = _smooth(rng.normal(0, 1, len(place)), 0.15)
    wander *= 0.5 / max(float(wander.std()), 1e-9)
    semitones = delivery.pitch_st + delivery.pitch_range * (accents + declination + wander) + end
    return np.clip(speaker.pitch_hz * 2 ** (semitones / 12), 55, 600)


def _source(tracks: _Tracks, delivery: Delivery, rng: np.random.Generator) -> np.ndarray:
    """Voice and breath before the tract, float [S]: an LF-like pulse per cycle, and noise."""
    samples = len(tracks.pitch_hz) * HOP
    time = np.arange(samples)
    at_hop = np.arange(len(tracks.pitch_hz)) * HOP
    phase = np.cumsum(np.interp(time, at_hop, tracks.pitch_hz)) / SAMPLE_RATE
    cycles = int(phase[-1]) + 3
    effort, breath, roughness = (
        float(np.clip(value, -1.5, 1.5))
        for value in (delivery.effort, delivery.breath, delivery.roughness)
    )
    jitter = 0.006 * 3.0**roughness
    shimmer = 0.04 * 3.0**roughness
    starts = np.interp(
        np.arange(-1, cycles) + jitter * rng.normal(0, 1, cycles + 1),
        np.concatenate([[-2.0], phase, [phase[-1] + 3.0]]),
        np.concatenate([[-1000.0], time, [samples + 1000.0]]),
    )
    starts = np.maximum.accumulate(starts)
    cycle = np.clip(np.searchsorted(starts, time, side="right") - 1, 0, cycles - 1)
    length = np.maximum(starts[cycle + 1] - starts[cycle], 2.0)
    place = (time - starts[cycle]) / length  # 0 to 1 within the cycle
    open_share = np.clip(0.6 - 0.12 * effort + 0.08 * breath, 0.35, 0.85)
    # The return phase: the slower the folds close, the steeper the spectrum falls.
    closing_s = 2.5e-4 * 3.0 ** np.clip(0.6 * breath - effort, -1.5, 1.5)
    u = place / open_share
    opening = 2 * u - 3 * u**2
    closing = -np.exp(-(place - open_share) * length / SAMPLE_RATE / closing_s)
    pulse = np.where(u < 1, opening, closing)
    pulse *= (1 + shimmer * rng.normal(0, 1, cycles + 1))[cycle]
    voicing = np.interp(time, at_hop, tracks.voicing)
    breathing = 0.018 * 3.0**breath * np.where(u < 1, 1.0, 0.35)
    aspiration = 0.5 * np.interp(time, at_hop, tracks.aspiration)
    noise = lfilter([0.8], [1.0, -0.6], rng.normal(0, 1, samples))  # breath is darker than white
    return voicing * pulse + (voicing * breathing + aspiration) * noise


def _filter(
    tracks: _Tracks, source: np.ndarray, delivery: Delivery, rng: np.random.Generator
) -> np.ndarray:
    """The source through the moving formants, friction through its own band; overlap-add."""
    count = len(tracks.pitch_hz) - 1
    window = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW) ** 2  # halves sum to one

    def spectra(signal: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP][:count]
        return np.fft.rfft(frames * window, FFT, axis=1).astype(np.complex64)

    hz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)
    delay = np.exp(-2j * np.pi * hz / SAMPLE_RATE).astype(np.complex64)
    # A loud voice has a flatter spectrum than its pulse alone gives: Traunmüller and Eriksson 2000.
    tilt_db = 5.0 * np.clip(delivery.effort, -1.5, 1.5) * np.clip(np.log2((hz + 1) / 500), 0, 2)
    out = spectra(source) * (10 ** (tilt_db / 20)).astype(np.float32)
    for number, bandwidth in enumerate(BANDWIDTHS):
        centre = tracks.formants[:count, number, None]
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        turn = (2 * radius * np.cos(2 * np.pi * np.minimum(centre, 7800) / SAMPLE_RATE)).astype(
            np.float32
        )
        gain = np.float32(1 + radius**2) - turn
        out *= gain / (1 - turn * delay + np.float32(radius**2) * delay**2)
    distance = (hz - tracks.friction_hz[:count, None]) / tracks.friction_width_hz[:count, None]
    band = np.exp(-0.5 * distance**2).astype(np.float32)
    friction = np.repeat(tracks.friction, HOP) * rng.normal(0, 1, len(source))
    out += spectra(friction) * band
    pieces = np.fft.irfft(out, FFT, axis=1)
    result = np.zeros((count + FFT // HOP + 1) * HOP)
    for part in range(-(-FFT // HOP)):  # the same stretch of all frames at once
        stretch = pieces[:, part * HOP : (part + 1) * HOP]
        rows = result[part * HOP : (part + count) * HOP].reshape(count, HOP)
        rows[:, : stretch.shape[1]] += stretch
    return result


def _record(speaker: Speaker, dry: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The room and the microphone: silence around, a tail, an equaliser, noise, a level."""
    lead, trail = (int(SAMPLE_RATE * rng.uniform(0.05, 0.2)) for _ in range(2))
    speech = np.concatenate([np.zeros(lead), dry, np.zeros(trail)])
    decay = np.exp(-np.arange(int(0.25 * SAMPLE_RATE)) / (0.05 * SAMPLE_RATE))
    tail = rng.normal(0, 1, len(decay)) * decay
    tail *= 10 ** (speaker.reverberation_db / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    speech = fftconvolve(speech, tail)[: len(speech)]
    hz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(hz, 40.0) / 250.0)
    gain_db = np.interp(octave, (0.0, 2.0, 4.0), speaker.equalizer_db)
    gain = 10 ** (gain_db / 20) * (1 - np.exp(-((hz / 70.0) ** 2)))  # nothing below the voice
    speech = np.fft.irfft(np.fft.rfft(speech) * gain, len(speech))
    hum = np.fft.rfft(rng.normal(0, 1, len(speech))) / np.sqrt(np.maximum(hz, 50.0))
    noise = np.fft.irfft(hum, len(speech))
    noise *= 10 ** (-speaker.noise_db / 20) * speech.std() / noise.std()
    sound = speech + noise
    level = 10 ** (rng.uniform(-12, -2) / 20)
    return (sound * level / np.abs(sound).max()).astype(np.float32)


def _smooth(values: np.ndarray, width_s: float) -> np.ndarray:
    """A track [T] smoothed by a Hann window of this width; edges keep their value."""
    half = max(1, round(width_s * SAMPLE_RATE / HOP / 2))
    kernel = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(values, len(kernel) // 2, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
