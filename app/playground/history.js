// States that can be gone back to and forth again. A state is a value that nobody changes.

const MOST = 200;

export class History {
  constructor(state) {
    this.states = [state];
    this.place = 0;
  }

  get state() {
    return this.states[this.place];
  }

  get canUndo() {
    return this.place > 0;
  }

  get canRedo() {
    return this.place < this.states.length - 1;
  }

  /** A new state; those that had been undone are gone. */
  push(state) {
    this.states = [...this.states.slice(0, this.place + 1), state].slice(-MOST);
    this.place = this.states.length - 1;
  }

  /** Another state in place of this one, as selecting something is no step of its own. */
  replace(state) {
    this.states[this.place] = state;
  }

  undo() {
    if (this.canUndo) this.place--;
  }

  redo() {
    if (this.canRedo) this.place++;
  }
}
