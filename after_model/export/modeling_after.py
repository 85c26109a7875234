"""AFTER's emotion classifier for transformers alone: this file goes into every exported folder.

    AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)

It needs torch and transformers, and nothing of AFTER. `input_values` are waves at 16 kHz, made zero
mean and unit variance where preprocessor_config.json says `do_normalize`; Whisper's spectrogram is
computed here, of the recording's own length. A batch is computed one recording after the other,
each without padding, so that none depends on its batch mates; `attention_mask` says how long each
is. ONNX is traced from the same code, hence no `if` that looks at a wave.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder


class FrameAdapter(nn.Module):
    """Changes the frames of a state [..., H], and says how much each counts [...]."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.down = nn.Linear(hidden_size, size)
        self.up = nn.Linear(size, hidden_size)
        self.attend = nn.Linear(size, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        inner = F.gelu(self.down(self.norm(frames)))
        return frames + self.up(inner), self.attend(inner)[..., 0].clamp(-5.0, 5.0).exp()


class AfterForAudioClassification(PreTrainedModel):
    """Hidden states pooled over time, each standardised; their mean; a linear layer.

    config: that of the encoder (Whisper, wav2vec 2.0, HuBERT, WavLM, data2vec-audio) with `after`:
    {"head", "states", "weighted", "adapter": null or its {"size", "share"}, and for Whisper "hop"
    and "window" in samples}.
    """

    main_input_name = "input_values"
    _keys_to_ignore_on_load_unexpected = (r"masked_spec_embed",)
    _keys_to_ignore_on_load_missing = (r"encoder\.layer_norm",)  # of an encoder that was cut

    basis: Tensor  # [2 * bins, 1, window]: cosines, then sines
    mel_filters: Tensor  # [bins, mels]
    state_mean: Tensor  # [S, R]
    state_std: Tensor  # [S, R]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        after = config.after
        self.head_name: str = after["head"]
        self.states: list[int] = after["states"]
        self.whisper = config.model_type == "whisper"
        if self.whisper:
            self.encoder = WhisperEncoder(config)
            self.hop: int = after["hop"]
            bins = after["window"] // 2 + 1
            self.register_buffer("basis", torch.zeros(2 * bins, 1, after["window"]))
            self.register_buffer("mel_filters", torch.zeros(bins, config.num_mel_bins))
        else:
            encoder = AutoModel.from_config(config)
            self.encoder_name: str = encoder.base_model_prefix
            setattr(self, self.encoder_name, encoder)
        size = config.hidden_size * (2 if self.head_name == "statistics" else 1)
        self.register_buffer("state_mean", torch.zeros(len(self.states), size))
        self.register_buffer("state_std", torch.ones(len(self.states), size))
        if after["weighted"]:
            self.state_weights = nn.Parameter(torch.zeros(len(self.states)))
        if after["adapter"]:
            self.adapter = FrameAdapter(config.hidden_size, after["adapter"]["size"])
        self.classifier = nn.Linear(size, config.num_labels)
        self.post_init()

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Waves [B, S], mask [B, S] with ones on each recording's samples -> logits [B, C]."""
        rows = [wave[None] for wave in input_values]
        if attention_mask is not None:
            rows = [
                row[:, : int(mask.sum())] for row, mask in zip(rows, attention_mask, strict=True)
            ]
        return SequenceClassifierOutput(logits=torch.cat([self.logits(row) for row in rows]))

    def logits(self, wave: Tensor) -> Tensor:
        """One recording [1, S] -> [1, C]."""
        states, inside = self.hidden(wave)
        weight = inside.to(wave.dtype)
        pooled = [self._pool(state, weight) for state in states]
        if adapter := self.config.after["adapter"]:
            adapted, counts = self.adapter(states[-1])
            pooled[-1] = pooled[-1].lerp(self._pool(adapted, weight * counts), adapter["share"])
        standardised = (torch.stack(pooled) - self.state_mean) / self.state_std
        if self.config.after["weighted"]:
            representation = self.state_weights.softmax(0) @ standardised
        else:
            representation = standardised.mean(dim=0)
        return self.classifier(representation)[None]

    def hidden(self, wave: Tensor) -> tuple[list[Tensor], Tensor]:
        """The states that are pooled, [W, T, H] each in W windows, and what of them counts [W, T].

        The last frame doesn't where the head leaves it out.
        """
        if self.whisper:
            return self._whisper_states(self._log_mel(wave))
        whole = getattr(self, self.encoder_name)(wave, output_hidden_states=True)
        found = (*whole.hidden_states[:-1], whole.last_hidden_state)  # the last one normed
        frames = found[0].shape[1]
        return [found[i] for i in self.states], self._counted(torch.arange(frames)[None], frames)

    def _pool(self, state: Tensor, weight: Tensor) -> Tensor:
        """[W, T, H], of which each frame counts so much [W, T] -> [R]."""
        weight = weight[..., None]
        count = weight.sum()
        if self.head_name == "published":
            state = state.relu()
        mean = (state * weight).sum(dim=(0, 1)) / count
        if self.head_name == "published":
            return mean.relu()
        if self.head_name == "linear":
            return mean
        variance = ((state - mean) ** 2 * weight).sum(dim=(0, 1)) / count
        return torch.cat([mean, (variance + 1e-6).sqrt()])

    def _counted(self, at: Tensor, frames: int) -> Tensor:
        """Which of the frames with these numbers a head pools."""
        if self.head_name != "published":
            return at < frames
        return (at < frames - 1) | (at == 0)

    # --- Whisper ---------------------------------------------------------------------------------

    def _log_mel(self, wave: Tensor) -> Tensor:
        """[1, S] -> log-mel spectrogram [1, mels, S // hop]; a Fourier transform as convolution."""
        half = self.basis.shape[2] // 2
        padded = F.pad(wave[:, None], (half, half), mode="reflect")
        real, imaginary = F.conv1d(padded, self.basis, stride=self.hop)[..., :-1].chunk(2, dim=1)
        power = self.mel_filters.T @ (real.square() + imaginary.square())
        mel = power.clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0

    def _whisper_states(self, mel: Tensor) -> tuple[list[Tensor], Tensor]:
        """[1, mels, M] -> states in the fewest windows of at most 30 s, as equal as can be."""
        encoder = self.encoder
        heard = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel))))[0].T
        frames, longest = heard.shape[0], self.config.max_source_positions
        windows = (frames + longest - 1) // longest
        size = (frames + windows - 1) // windows
        number = torch.arange(windows, device=mel.device)
        first, end = number * frames // windows, (number + 1) * frames // windows
        at = first[:, None] + torch.arange(size, device=mel.device)
        valid = at < end[:, None]
        hidden = heard[at.clamp(max=frames - 1)] + encoder.embed_positions.weight[:size]
        bias = (~valid)[:, None, None].to(hidden.dtype) * torch.finfo(hidden.dtype).min
        found = [hidden]
        for layer in encoder.layers[: max(self.states)]:
            hidden = layer(hidden, bias)
            found.append(hidden)
        if len(found) > len(encoder.layers) and getattr(self.config, "final_layer_norm", True):
            found[-1] = encoder.layer_norm(hidden)
        return [found[i] for i in self.states], valid & self._counted(at, frames)
