// Which row of the page a question, its transcript and its answer belong to. A question of the page
// has a name from the start; what is spoken has an item of the server once that is told.

export class Turns {
  // make: a text -> a row with it, at the end. remove: takes a row away again.
  constructor(make, remove) {
    this.make = make;
    this.remove = remove;
    this.rows = new Map(); // by name, and by item
    this.uncommitted = []; // names of what was pushed to talk, oldest first
    this.speaking = null; // the item of what is being said
    this.spoken = null; // the row of what was said last, if nothing answers it yet
    this.number = 0;
  }

  // A typed question; its name.
  typed(text) {
    const name = `turn-${++this.number}`;
    this.rows.set(name, this.make(text));
    return name;
  }

  // One that was said while the button was down; its name.
  pushed() {
    const name = this.typed("...");
    this.uncommitted.push(name);
    return name;
  }

  // Somebody has begun to speak.
  began(item) {
    this.cleared();
    this.speaking = item;
    this.rows.set(item, this.make("..."));
  }

  // The server has taken what was said; it does so in the order in which it was.
  committed(item) {
    if (item === this.speaking) {
      this.speaking = null;
      this.spoken = this.rows.get(item);
    } else if (this.uncommitted.length) {
      this.rows.set(item, this.rows.get(this.uncommitted.shift()));
    }
  }

  // The server has not taken what was pushed to talk.
  refused(name) {
    if (!this.uncommitted.includes(name)) return;
    this.uncommitted = this.uncommitted.filter((one) => one !== name);
    this.forget(name);
  }

  // What was being said is no question.
  cleared() {
    if (this.speaking !== null) this.forget(this.speaking);
    this.speaking = null;
  }

  forget(key) {
    this.remove(this.rows.get(key));
    this.rows.delete(key);
  }

  // The row of a spoken question.
  of(item) {
    return this.rows.get(item);
  }

  // The row of an answer: of the question with this name, or of what was said last.
  answered(name) {
    const row = this.rows.get(name) ?? this.spoken ?? this.make("");
    if (row === this.spoken) this.spoken = null;
    return row;
  }
}
