"""A sound card that is none: the module `sounddevice` as far as `sound_card` uses it."""

import numpy as np


class PortAudioError(Exception):
    """As PortAudio's."""


class SoundCard:
    """rate: its own. others: whether it plays at other rates. without: "input" or "output"."""

    PortAudioError = PortAudioError

    def __init__(self, rate=48_000, others=True, without="", busy=False):
        self.rate, self.others, self.without, self.busy = rate, others, without, busy
        self.streams = {}

    def query_devices(self, kind):
        if kind == self.without:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": float(self.rate)}

    def check_output_settings(self, samplerate, **_):
        if not self.others and samplerate != self.rate:
            raise PortAudioError("Invalid sample rate")

    def InputStream(self, **settings):
        return Stream(self, "input", settings)

    def OutputStream(self, **settings):
        return Stream(self, "output", settings)

    def hears(self, wave):
        """The microphone's next samples, in its pieces."""
        settings = self.streams["input"]
        size = settings["blocksize"]
        for at in range(0, len(wave), size):
            settings["callback"](wave[at : at + size, None], size, None, None)

    def plays(self, count):
        """What the loudspeaker plays next."""
        out = np.full((count, 1), 9.0, np.float32)
        self.streams["output"]["callback"](out, count, None, None)
        return out[:, 0]


class Stream:
    """Open while it is entered."""

    def __init__(self, card, kind, settings):
        if card.busy:
            raise PortAudioError("Device unavailable")
        self._card, self._kind, self._settings = card, kind, settings

    def __enter__(self):
        self._card.streams[self._kind] = self._settings

    def __exit__(self, *_):
        del self._card.streams[self._kind]
