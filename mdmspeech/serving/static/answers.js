// The answers, between the server that makes them and the loudspeaker that plays them. One that is
// stopped is stopped at both, at once; how much of it was played the server is told later, when the
// loudspeaker has said so.

export class Answers {
  // sound: the loudspeaker.
  constructor(sound) {
    this.sound = sound;
    this.server = null;
    this.known = new Map(); // by response; stopped: by us. over: the loudspeaker is done with it
  }

  // Whether any is being made or played.
  get live() {
    return [...this.known.values()].some((answer) => !answer.over);
  }

  get(id) {
    return this.known.get(id);
  }

  begin(id, shown) {
    this.known.set(id, { ...shown, pieces: [], stopped: false, over: false });
  }

  put(id, samples) {
    if (!samples.length) return;
    const answer = this.known.get(id);
    answer.pieces.push(samples);
    if (!answer.stopped) this.sound.put(id, samples); // else it was on its way when that was stopped
  }

  // Nothing more of any is made or played.
  silence() {
    for (const [id, answer] of this.known) {
      if (answer.over || answer.stopped) continue;
      this.server.cancel(id);
      this.stop(id);
    }
  }

  // Nothing more of it is played; the server makes no more of it.
  stop(id) {
    const answer = this.known.get(id);
    if (!answer || answer.over || answer.stopped) return;
    answer.stopped = true;
    this.sound.stop(id);
  }

  // All of it was made.
  end(id) {
    const answer = this.known.get(id);
    if (!answer.pieces.length && !answer.stopped) answer.over = true; // there is nothing to play
    this.sound.end(id);
  }

  // The loudspeaker's report: the answer that it is done with now, if there is one.
  reported({ finished, stopped, seconds }) {
    const id = finished ?? stopped;
    const answer = this.known.get(id);
    if (!answer || answer.over) return null;
    answer.over = true;
    if (id === stopped) this.server.played(id, seconds);
    return answer;
  }
}
