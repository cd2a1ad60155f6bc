// The loudspeaker where there is no AudioWorklet (pages over plain http): pieces are scheduled one
// behind the other. It takes the messages of playback_worklet.js, and tells what that tells.

const RATE = 24000;
const FIRST_WAIT = 0.09; // seconds
const FADE = 0.005;

export class Scheduled {
  constructor(context, report) {
    this.context = context;
    this.report = report;
    this.pieces = []; // {id, source, gain, from, to}
    this.ended = new Set();
    this.now = null;
    this.gaps = 0;
  }

  postMessage(data) {
    this[data.do](data);
  }

  put({ id, samples }) {
    const { context } = this;
    const buffer = context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const gain = new GainNode(context);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(gain).connect(context.destination);
    const behind = this.pieces.at(-1)?.to ?? 0;
    const late = behind <= context.currentTime;
    if (late && this.now === id) this.gaps += 1;
    const from = late ? context.currentTime + FIRST_WAIT : behind;
    const piece = { id, source, gain, from, to: from + buffer.duration };
    source.onended = () => this.over(piece);
    source.start(from);
    this.pieces.push(piece);
    if (this.now !== id && !this.pieces.some((one) => one.id === this.now && !one.done)) this.begin(id);
  }

  end({ id }) {
    this.ended.add(id);
    if (this.now === id && this.pieces.every((piece) => piece.id !== id || piece.done)) this.finish(id);
  }

  stop({ id }) {
    const seconds = this.played(id);
    for (const piece of this.pieces.filter((one) => one.id === id && !one.done)) {
      piece.done = true;
      piece.source.onended = null;
      piece.gain.gain.setTargetAtTime(0, this.context.currentTime, FADE / 3);
      piece.source.stop(this.context.currentTime + FADE);
    }
    this.pieces = this.pieces.filter((one) => one.id !== id);
    this.ended.add(id);
    if (this.now === id) this.now = null;
    this.tell({ stopped: id, seconds });
  }

  begin(id) {
    this.now = id;
    this.tell({ began: id });
  }

  over(piece) {
    piece.done = true;
    const { id } = piece;
    if (!this.ended.has(id) || this.pieces.some((one) => one.id === id && !one.done)) return;
    this.finish(id);
  }

  finish(id) {
    const seconds = this.played(id);
    this.now = null;
    this.tell({ finished: id, seconds });
    const next = this.pieces.find((piece) => !piece.done);
    if (next) this.begin(next.id);
  }

  played(id) {
    const at = this.context.currentTime;
    const heard = ({ from, to, done }) => (done ? to - from : Math.max(0, Math.min(at, to) - from));
    return this.pieces.reduce((sum, one) => sum + (one.id === id ? heard(one) : 0), 0);
  }

  tell(more) {
    const played = this.now === null ? 0 : this.played(this.now);
    this.report({ now: this.now, played, gaps: this.gaps, ...more });
  }
}
