"""Waves and what is computed from them, for any rate and any model: this room knows nothing of
speech models.

Reading and writing: `wave` (any source -> one mono float array), `files`, `media` (what needs
  ffmpeg), `riff`, `arrays`, `channels`, `kinds`, `writer`.
Features: `features` (log-mel inside a compiled model) and `host_features` (the same in numpy, for
  input pipelines), `stft`, `mel`, `fbank`, `pitch`.
"""
