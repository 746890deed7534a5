// A chat of any length as a list that scrolls: only what is near the window exists as elements.
//
// Messages stand in blocks of `BLOCK`. A block's height is measured once it was shown, and guessed until then. What the reader
// looks at, the anchor, stays where it is on the screen whatever happens to the heights above it. A browser has room for some
// ten million pixels: of a chat with more than `ROOM` messages that many are laid out, and more as one comes to their end.
import { ask, make } from "./dom.js";

const BLOCK = 50;
const ROOM = 150000;
const MAX_KEPT = 80;
const GUESSED = 58;

// of all messages one is a stop of the tab key, and what is inside it
const setStop = (line, isCurrent) => {
  line.tabIndex = isCurrent ? 0 : -1;
  for (const inside of line.querySelectorAll("a, button")) inside.tabIndex = isCurrent ? 0 : -1;
};

export class ChatList {
  constructor(scroll, room, bubble, changed) {
    Object.assign(this, { scroll, room, bubble, changed });
    this.chat = null;
    this.shown = new Map(); // number of a block: its element
    this.kept = new Map(); // number of a block: its messages, or the promise of them
    this.current = null; // the place that has the keyboard's focus
    this.sizes = new ResizeObserver((found) => this.measure(found));
    scroll.addEventListener("scroll", () => { if (this.chat !== null && this.heights) { this.catchUp(); this.wish(); } }, { passive: true });
    new ResizeObserver(() => this.settle()).observe(scroll);
    room.addEventListener("focusin", (event) => {
      const line = event.target.closest(".line");
      if (line) this.setCurrent(Number(line.dataset.place), false);
    });
  }

  /** Shows a chat; `place` is where to begin. */
  async open(chat, place) {
    this.chat = chat;
    this.kept.clear();
    this.clear();
    this.current = null;
    await this.go(place, false);
  }

  clear() {
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.sizes.disconnect();
  }

  get total() { return this.chat === null ? 0 : this.chat.num_lines; }

  /** Lays out the blocks from a first one on, with all heights guessed. */
  layOut(first) {
    this.clear();
    const num = Math.ceil(this.total / BLOCK);
    this.first = Math.max(0, Math.min(first, num - ROOM / BLOCK));
    this.last = Math.min(num, this.first + ROOM / BLOCK);
    this.heights = new Float64Array(this.last - this.first).fill(BLOCK * GUESSED);
    if (this.last === num && this.total % BLOCK) this.heights[this.last - this.first - 1] = (this.total % BLOCK) * GUESSED;
    this.sum();
  }

  sum() {
    this.tops = new Float64Array(this.heights.length + 1);
    for (let number = 0; number < this.heights.length; number++) this.tops[number + 1] = this.tops[number] + this.heights[number];
    this.room.style.height = `${this.tops[this.heights.length]}px`;
  }

  top(block) { return this.tops[block - this.first]; }

  /** The block at a height. */
  blockAt(y) {
    let low = 0, high = this.heights.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) low = middle; else high = middle - 1;
    }
    return this.first + low;
  }

  lineElement(place) {
    const block = this.shown.get(Math.floor(place / BLOCK));
    return block ? block.querySelector(`[data-place="${place}"]`) : null;
  }

  /** Brings a message to the middle of the window, and the keyboard to it if that is wanted. */
  async go(place, takesFocus) {
    if (!this.total) { this.layOut(0); return; }
    const wanted = Math.max(0, Math.min(place, this.total - 1));
    const block = Math.floor(wanted / BLOCK);
    if (!this.heights || !this.shown.size || block < this.first || block >= this.last) this.layOut(block - ROOM / BLOCK / 2);
    const turn = (this.turn = (this.turn || 0) + 1);
    const lines = await this.messages(block);
    if (turn !== this.turn) return; // somebody went elsewhere meanwhile
    const waiting = this.shown.get(block);
    if (waiting && waiting.classList.contains("waiting")) this.fill(waiting, lines);
    const height = this.scroll.clientHeight;
    this.anchor = { place: wanted, at: Math.round(height * 0.35) };
    this.render([block]);
    const element = this.lineElement(wanted);
    // one that is taller than the window begins at its top
    if (element && element.offsetHeight > height * 0.6) this.anchor.at = 12;
    this.settle();
    this.setCurrent(wanted, takesFocus);
  }

  /** What is looked at: the first message that reaches into the window, as far as messages are there. */
  findAnchor() {
    const y = (this.seen = this.scroll.scrollTop);
    const last = this.blockAt(y + this.scroll.clientHeight);
    for (let number = this.blockAt(y); number <= last; number++) {
      const block = this.shown.get(number);
      if (!block || block.classList.contains("waiting")) continue;
      for (const line of block.children) {
        const top = this.top(number) + line.offsetTop;
        if (top + line.offsetHeight > y) { this.anchor = { place: Number(line.dataset.place), at: top - y }; return; }
      }
    }
    const number = this.blockAt(y);
    this.anchor = { place: number * BLOCK, at: this.top(number) - y };
  }

  /** Takes note of a scrolling that no event has told of yet, which would be undone otherwise. */
  catchUp() {
    if (Math.abs(this.scroll.scrollTop - this.seen) > 0.5) this.findAnchor();
  }

  wish() {
    if (this.isWished) return;
    this.isWished = true;
    requestAnimationFrame(() => { this.isWished = false; this.settle(); });
  }

  /** Puts blocks and the window where they belong, so that the anchor keeps its place on the screen. */
  settle() {
    if (this.chat === null || !this.heights || !this.anchor) return;
    const { place, at } = this.anchor;
    const block = Math.floor(place / BLOCK);
    const element = this.lineElement(place);
    const y = this.top(block) + (element ? element.offsetTop : ((place % BLOCK) * this.heights[block - this.first]) / BLOCK) - at;
    if (Math.abs(this.scroll.scrollTop - y) > 0.5) this.scroll.scrollTop = y;
    this.seen = this.scroll.scrollTop;
    this.render();
    this.moveRoom(block);
  }

  /** Near the end of what is laid out of a very long chat, lays out further. */
  moveRoom(block) {
    const num = Math.ceil(this.total / BLOCK);
    if ((block - this.first < 20 && this.first > 0) || (this.last - block < 20 && this.last < num)) {
      const hadFocus = this.room.contains(document.activeElement);
      this.layOut(block - ROOM / BLOCK / 2);
      this.settle();
      if (hadFocus) (this.lineElement(this.current) || this.scroll).focus({ preventScroll: true });
    }
  }

  /** Makes the elements of the blocks around the window, and takes away all others but that of the focus. */
  render(more = []) {
    const height = this.scroll.clientHeight;
    const y = this.scroll.scrollTop;
    const from = this.blockAt(Math.max(0, y - 2 * height)), to = this.blockAt(y + 3 * height);
    const wanted = new Set(more);
    for (let block = from; block <= to; block++) wanted.add(block);
    const focused = document.activeElement && document.activeElement.closest("#lines .block");
    if (focused) wanted.add(Number(focused.dataset.block));
    for (const [block, element] of this.shown) {
      if (!wanted.has(block)) { this.sizes.unobserve(element); element.remove(); this.shown.delete(block); }
    }
    for (const block of [...wanted].sort((a, b) => a - b)) {
      if (block < this.first || block >= this.last) continue;
      if (!this.shown.has(block)) this.put(block);
      this.shown.get(block).style.transform = `translateY(${this.top(block)}px)`;
    }
    this.changed(this.blockAt(y));
  }

  put(block) {
    const element = make("div", "block");
    element.dataset.block = block;
    // in the order of the messages, whatever came first
    const after = [...this.shown.keys()].filter((other) => other > block).sort((a, b) => a - b)[0];
    this.room.insertBefore(element, after === undefined ? null : this.shown.get(after));
    this.shown.set(block, element);
    const known = this.kept.get(block);
    if (Array.isArray(known)) this.fill(element, known);
    else {
      element.classList.add("waiting");
      element.style.height = `${this.heights[block - this.first]}px`;
      // not each block that flies by is asked for
      setTimeout(async () => {
        if (this.shown.get(block) !== element) return;
        try {
          const lines = await this.messages(block);
          if (this.shown.get(block) === element && element.classList.contains("waiting")) { this.catchUp(); this.fill(element, lines); this.measure([{ target: element }]); }
        } catch (error) {
          if (this.shown.get(block) === element) element.replaceChildren(make("p", "fault", error.message));
        }
      }, this.kept.has(block) ? 0 : 60);
    }
    this.sizes.observe(element);
  }

  fill(element, lines) {
    const hadFocus = element.contains(document.activeElement);
    element.classList.remove("waiting");
    element.style.height = "";
    element.replaceChildren(...lines.map((line) => {
      const bubble = this.bubble(line);
      bubble.setAttribute("aria-posinset", line.place + 1);
      bubble.setAttribute("aria-setsize", this.total);
      setStop(bubble, line.place === this.current);
      return bubble;
    }));
    if (hadFocus) element.querySelector(`[data-place="${this.current}"]`)?.focus({ preventScroll: true });
    const isDone = ![...this.shown.values()].some((its) => its.classList.contains("waiting"));
    this.room.setAttribute("aria-busy", String(!isDone));
  }

  measure(found) {
    if (this.chat === null || !this.heights) return;
    this.catchUp();
    let isChanged = false;
    for (const { target } of found) {
      const number = Number(target.dataset.block) - this.first;
      if (!target.isConnected || target.classList.contains("waiting") || number < 0 || number >= this.heights.length) continue;
      const height = target.offsetHeight;
      if (Math.abs(height - this.heights[number]) > 0.5) { this.heights[number] = height; isChanged = true; }
    }
    if (isChanged) { this.sum(); this.settle(); }
  }

  /** The messages of a block, asked for once. */
  async messages(block) {
    if (!this.kept.has(block)) {
      const chat = this.chat;
      const asked = ask(`/api/chats/${chat.id}/lines`, { start: block * BLOCK, count: BLOCK }).then(
        (found) => { if (this.chat === chat) this.kept.set(block, found.lines); return found.lines; },
        (error) => { if (this.chat === chat) this.kept.delete(block); throw error; },
      );
      this.kept.set(block, asked);
      if (this.kept.size > MAX_KEPT) {
        for (const old of this.kept.keys()) {
          if (!this.shown.has(old) && old !== block) { this.kept.delete(old); break; }
        }
      }
    }
    return this.kept.get(block);
  }

  /** Draws all that is shown anew, as when other messages are marked. */
  redraw() {
    for (const [block, element] of this.shown) {
      const known = this.kept.get(block);
      if (Array.isArray(known)) this.fill(element, known);
    }
    this.settle();
  }

  /** The message that keys begin from. */
  setCurrent(place, takesFocus) {
    const before = this.current === null ? null : this.lineElement(this.current);
    if (before) { setStop(before, false); before.classList.remove("here"); }
    this.current = place;
    const element = this.lineElement(place);
    if (!element) return;
    setStop(element, true);
    if (takesFocus) element.focus({ preventScroll: true });
  }

  /** Goes some messages on, or back where the number is below 0; scrolls no further than it must. */
  async step(by) {
    if (!this.total) return;
    const place = Math.max(0, Math.min((this.current === null ? this.anchor.place : this.current) + by, this.total - 1));
    const element = this.lineElement(place);
    if (!element) { await this.go(place, true); return; }
    const window_ = this.scroll.getBoundingClientRect(), its = element.getBoundingClientRect();
    this.setCurrent(place, true);
    if (its.bottom > window_.bottom - 8) this.scroll.scrollTop += Math.min(its.bottom - window_.bottom + 8, its.top - window_.top - 8);
    else if (its.top < window_.top + 8) this.scroll.scrollTop += its.top - window_.top - 8;
  }
}
