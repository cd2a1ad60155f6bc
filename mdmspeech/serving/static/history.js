// The turns before a question, for a server that remembers nothing between two requests. They are
// sent as text: it takes few recordings, and knows the answers by their ids for an hour only. An
// answer that was stopped is remembered as far as it was written.

const MOST = 8; // turns
const MOST_RECORDINGS = 3; // where the server writes down nothing of what it hears

export class History {
  constructor() {
    this.turns = [];
  }

  // A question that is asked now: its `answer` grows as it comes, and its `question`, if that is a
  // recording, becomes a text once its transcript is known.
  add(question) {
    this.turns = [...this.answered(), { question, answer: "" }];
    return this.turns.at(-1);
  }

  // The turns before it.
  before(turn) {
    return this.turns.slice(0, this.turns.indexOf(turn));
  }

  answered() {
    const answered = this.turns.filter((turn) => turn.answer.trim()).slice(-MOST);
    return answered.filter((turn, at) => {
      return typeof turn.question === "string" || at >= answered.length - MOST_RECORDINGS;
    });
  }
}

// The question of a turn behind earlier ones, as messages.
export function messages(earlier, turn) {
  const said = earlier.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
  return [...said, { role: "user", content: turn.question }];
}
