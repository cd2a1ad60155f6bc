// The loudspeaker: answers one after the other. It knows how much of each was played, fades where it
// is stopped, waits a little before it begins, and longer after it has run dry.

import { Resampler } from "./resampler.js";

const RATE = 24000;
const FADE = 0.005; // seconds
const FIRST_WAIT = 0.09; // seconds of sound that wait before an answer begins
const MORE_WAIT = 0.005; // more for each gap
const LONGEST_WAIT = 0.2;
const TELL = 0.1; // seconds between two reports

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = []; // {id, samples, from}
    this.waiting = 0; // samples in it
    this.played = new Map();
    this.ended = new Set();
    this.now = null;
    this.dry = false;
    this.gaps = 0;
    this.fading = null;
    this.told = 0;
    this.ready = new Float32Array(0); // at the device's rate
    this.resampler = new Resampler(RATE, sampleRate);
    this.port.onmessage = ({ data }) => this[data.do](data);
  }

  put({ id, samples }) {
    this.queue.push({ id, samples, from: 0 });
    this.waiting += samples.length;
  }

  end({ id }) {
    this.ended.add(id);
  }

  stop({ id }) {
    if (this.now === id) {
      const first = this.queue.find((one) => one.id === id);
      if (first) this.fading = first.samples.slice(first.from, first.from + FADE * RATE);
      this.now = null;
    }
    this.queue = this.queue.filter((one) => one.id !== id);
    this.waiting = this.queue.reduce((sum, one) => sum + one.samples.length - one.from, 0);
    this.ended.add(id);
    this.ready = this.ready.slice(0, FADE * sampleRate);
    this.tell({ stopped: id, seconds: (this.played.get(id) ?? 0) / RATE });
  }

  process(_, outputs) {
    const out = outputs[0][0];
    while (this.ready.length < out.length) {
      const more = this.resampler.push(this.next(Math.ceil((out.length * RATE) / sampleRate)));
      const both = new Float32Array(this.ready.length + more.length);
      both.set(this.ready);
      both.set(more, this.ready.length);
      this.ready = both;
    }
    out.set(this.ready.subarray(0, out.length));
    this.ready = this.ready.slice(out.length);
    if (this.now !== null && currentTime - this.told >= TELL) this.tell({});
    return true;
  }

  // The next `count` samples at 24 kHz; silence where there are none.
  next(count) {
    const out = new Float32Array(count);
    let at = 0;
    if (this.fading) {
      const length = this.fading.length;
      for (; at < count && at < length; at++) out[at] = this.fading[at] * (1 - (at + 1) / length);
      this.fading = null;
    }
    while (at < count && this.queue.length && this.mayBegin()) {
      const first = this.queue[0];
      if (this.now !== first.id) this.begin(first.id);
      this.dry = false;
      const taken = first.samples.subarray(first.from, first.from + count - at);
      out.set(taken, at);
      at += taken.length;
      first.from += taken.length;
      this.waiting -= taken.length;
      this.played.set(first.id, (this.played.get(first.id) ?? 0) + taken.length);
      if (first.from === first.samples.length) this.queue.shift();
    }
    if (!this.queue.length && this.now !== null) {
      if (this.ended.has(this.now)) {
        const id = this.now;
        this.now = null;
        this.tell({ finished: id, seconds: this.played.get(id) / RATE });
      } else if (!this.dry) {
        this.dry = true;
        this.gaps += 1;
        this.tell({});
      }
    }
    return out;
  }

  begin(id) {
    this.now = id;
    this.tell({ began: id });
  }

  mayBegin() {
    const first = this.queue[0].id;
    if (first === this.now && !this.dry) return true;
    const wait = Math.min(FIRST_WAIT + MORE_WAIT * this.gaps, LONGEST_WAIT);
    return this.waiting >= wait * RATE || this.ended.has(first);
  }

  tell(more) {
    this.told = currentTime;
    const seconds = this.now === null ? 0 : (this.played.get(this.now) ?? 0) / RATE;
    this.port.postMessage({ now: this.now, played: seconds, gaps: this.gaps, ...more });
  }
}

registerProcessor("playback", Playback);
