// Requests for pictures: where the server is busy they are sent again, and of many only the newest counts.

const TRIES = 8;

export async function problemOf(response) {
  try {
    const {detail} = await response.json();
    return String(detail);
  } catch {
    return `the server answered ${response.status}`;
  }
}

// Return an address within the browser, which is to be revoked. An aborted signal ends the wait.
export async function fetchPicture(address, signal) {
  for (let tries = 1; ; tries++) {
    const response = await fetch(address, {signal});
    if (response.ok) return URL.createObjectURL(await response.blob());
    if (response.status !== 503 || tries >= TRIES) throw new Error(await problemOf(response));
    const seconds = Number(response.headers.get('retry-after')) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    signal.throwIfAborted();
  }
}

// One request at a time: while it is under way, only the newest wish is remembered.
export class Latest {
  constructor(show, fail, busy) {
    Object.assign(this, {show, fail, busy, wish: null, asked: null, running: false, control: new AbortController()});
  }

  want(address) {
    if (address === this.asked) {
      this.wish = null;
      return;
    }
    this.wish = address;
    if (!this.running) this.run();
  }

  async run() {
    this.running = true;
    this.busy(true);
    while (this.wish !== null) {
      this.asked = this.wish;
      this.wish = null;
      try {
        this.show(await fetchPicture(this.asked, this.control.signal));
      } catch (error) {
        if (this.control.signal.aborted) return;
        this.asked = null;
        this.fail(error.message);
      }
    }
    this.running = false;
    this.busy(false);
  }

  close() {
    this.control.abort();
  }
}

// Some requests at a time; those that wait can be given up.
export class Pool {
  constructor(most) {
    Object.assign(this, {most, under: 0, waiting: []});
  }

  async run(task, signal) {
    if (this.under >= this.most) await new Promise((resolve) => this.waiting.push(resolve));
    this.under++;
    try {
      signal.throwIfAborted();
      return await task();
    } finally {
      this.under--;
      this.waiting.shift()?.();
    }
  }
}
