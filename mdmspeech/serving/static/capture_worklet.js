// The microphone as pieces of 40 ms, 24 kHz, 16 bits, with how loud each is.

import { Resampler } from "./resampler.js";

const RATE = 24000;
const PIECE = 960;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.piece = new Int16Array(PIECE);
    this.count = 0;
    this.power = 0;
  }

  process(inputs) {
    const heard = inputs[0][0];
    if (!heard) return true;
    for (const sample of this.resampler.push(heard)) {
      const clipped = Math.max(-1, Math.min(1, sample));
      this.power += clipped * clipped;
      this.piece[this.count++] = Math.max(-32768, Math.min(32767, Math.round(clipped * 32768)));
      if (this.count === PIECE) {
        const level = Math.sqrt(this.power / PIECE);
        this.port.postMessage({ level, samples: this.piece.buffer }, [this.piece.buffer]);
        this.piece = new Int16Array(PIECE);
        this.count = 0;
        this.power = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
