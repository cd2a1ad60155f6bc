// One stream of samples at another rate: a windowed sinc, whatever the ratio. Used inside worklets.

const HALF = 16; // zero crossings on each side
const FINE = 512; // entries of the table between two
const TABLE = Float64Array.from({ length: HALF * FINE + 1 }, (_, i) => {
  const x = i / FINE;
  const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
  return sinc * (0.5 + 0.5 * Math.cos((Math.PI * x) / HALF));
});

export class Resampler {
  constructor(from, to) {
    this.step = from / to;
    this.cutoff = Math.min(1, to / from);
    this.reach = Math.ceil(HALF / this.cutoff);
    this.kept = new Float32Array(this.reach); // silence in front of the first sample
    this.at = this.reach; // of the next output, in samples of `kept` and what is pushed
  }

  // The next samples in -> those that can be told now.
  push(samples) {
    if (this.step === 1) return samples;
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const out = [];
    while (this.at + this.reach < all.length) {
      const middle = Math.floor(this.at);
      let sum = 0;
      for (let i = middle - this.reach + 1; i <= middle + this.reach; i++) {
        if (i >= 0) sum += all[i] * this.weight(this.at - i);
      }
      out.push(sum);
      this.at += this.step;
    }
    const used = Math.max(Math.floor(this.at) - this.reach, 0);
    this.kept = all.slice(used);
    this.at -= used;
    return Float32Array.from(out);
  }

  weight(distance) {
    const at = Math.abs(distance) * this.cutoff * FINE;
    const i = Math.floor(at);
    return i >= HALF * FINE ? 0 : this.cutoff * (TABLE[i] + (at - i) * (TABLE[i + 1] - TABLE[i]));
  }
}
