// A plane of pictures without an end that is painted as one moves over it, in blocks of a few pictures.

import {make} from './make.js';
import {View, describe} from './pictures.js';
import {Pool, fetchPicture} from './requests.js';
import {atPlace, exact, pictureQuery, placeOf} from './state.js';

const BLOCK = 2; // pictures across and down
const MARGIN = 1; // blocks beyond the edge that are painted already
const CLICK = 5; // pixels that a finger may move
const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const pool = new Pool(4);

export class WallView extends View {
  constructor(view, runs, change) {
    super('wall', view, runs);
    Object.assign(this, {change, blocks: new Map(), missing: 0, style: '', drag: null});
    this.middle = make('div', {className: 'middle'});
    this.frame.append(this.middle);
    this.frame.tabIndex = 0;
    this.frame.setAttribute('role', 'application');
    this.frame.setAttribute('aria-label', `Wall of pictures by ${view.run}: arrow keys move, plus and minus zoom, ` +
      'Enter opens the picture in the middle');
    this.caption.setAttribute('aria-live', 'polite');
    this.element.insertBefore(this.keys(), this.element.lastChild);
    this.frame.addEventListener('keydown', (event) => this.press(event));
    this.frame.addEventListener('pointerdown', (event) => this.grab(event));
    this.frame.addEventListener('pointermove', (event) => this.pull(event));
    this.frame.addEventListener('pointerup', (event) => this.drop(event));
    this.frame.addEventListener('pointercancel', () => { this.drag = null; });
    this.resized = new ResizeObserver(() => this.layOut());
    this.resized.observe(this.frame);
  }

  keys() {
    const button = (text, label, act) => {
      const made = make('button', {type: 'button', textContent: text});
      made.setAttribute('aria-label', label);
      made.addEventListener('click', act);
      return made;
    };
    return make('p', {className: 'keys'},
      button('←', 'Left', () => this.step(-1, 0)), button('→', 'Right', () => this.step(1, 0)),
      button('↑', 'Up', () => this.step(0, -1)), button('↓', 'Down', () => this.step(0, 1)),
      button('+', 'Zoom in', () => this.zoom(0.5)), button('−', 'Zoom out', () => this.zoom(2)),
      button('Open', 'Open the picture in the middle', () => this.change({mode: 'picture'})));
  }

  press(event) {
    if (KEYS[event.key]) this.step(...KEYS[event.key]);
    else if (event.key === '+' || event.key === '=') this.zoom(0.5);
    else if (event.key === '-') this.zoom(2);
    else if (event.key === 'Enter') this.change({mode: 'picture'});
    else return;
    event.preventDefault();
  }

  step(right, down) {
    const [x, y] = placeOf(this.state);
    this.change(atPlace(x + right * this.state.spacing, y + down * this.state.spacing));
  }

  zoom(by) {
    const spacing = Math.min(1, Math.max(1 / 64, this.state.spacing * by));
    // The middle stays one of the wall's pictures.
    const [x, y] = placeOf(this.state).map((at) => Math.round(at / spacing) * spacing);
    this.change({spacing, ...atPlace(x, y)});
  }

  grab(event) {
    this.drag = {x: event.clientX, y: event.clientY, from: placeOf(this.state), far: 0};
    this.frame.setPointerCapture(event.pointerId);
  }

  pull(event) {
    if (!this.drag) return;
    const [right, down] = [event.clientX - this.drag.x, event.clientY - this.drag.y];
    this.drag.far = Math.max(this.drag.far, Math.hypot(right, down));
    if (this.drag.far < CLICK) return;
    const each = this.state.spacing / this.side;
    this.change(atPlace(this.drag.from[0] - right * each, this.drag.from[1] - down * each));
  }

  drop(event) {
    const clicked = this.drag && this.drag.far < CLICK;
    this.drag = null;
    if (!clicked) return;
    const box = this.frame.getBoundingClientRect();
    const [x, y] = placeOf(this.state);
    const spacing = this.state.spacing;
    const at = [x + ((event.clientX - box.left - box.width / 2) / this.side) * spacing,
      y + ((event.clientY - box.top - box.height / 2) / this.side) * spacing];
    this.change({...atPlace(...at.map((value) => Math.round(value / spacing) * spacing)), mode: 'picture'});
  }

  show(state) {
    this.state = {...state};
    const plain = {...state, seed: 0, dx: 0, dy: 0};
    const style = `${pictureQuery(plain, this.view, this.runs)} ${state.spacing}`;
    if (style !== this.style) this.clear();
    this.style = style;
    this.caption.textContent = `in the middle: ${describe(state)}`;
    this.layOut();
  }

  // Put every block in its place, ask for those that are missing, and forget those that are far away.
  layOut() {
    const {clientWidth: width, clientHeight: height} = this.frame;
    if (!this.state || !width) return;
    this.side = Math.max(64, Math.min(128, Math.round(Math.min(width, height) / 5)));
    const [x, y] = placeOf(this.state).map((at) => at / this.state.spacing);
    const [across, down] = [width / 2 / this.side, height / 2 / this.side];
    const range = (at, half) => [Math.floor((at - half) / BLOCK) - MARGIN, Math.floor((at + half + 1) / BLOCK) + MARGIN];
    const [[left, right], [top, bottom]] = [range(x, across), range(y, down)];
    const places = [];
    for (let row = top; row <= bottom; row++) for (let column = left; column <= right; column++) places.push([column, row]);
    const far = ([column, row]) => Math.hypot((column + 0.5) * BLOCK - x, (row + 0.5) * BLOCK - y);
    places.sort((a, b) => far(a) - far(b)); // what is in the middle is painted first
    const seen = new Set(places.map(String));
    for (const [column, row] of places) {
      const key = String([column, row]);
      if (!this.blocks.has(key)) this.blocks.set(key, this.block(column, row));
      const {style} = this.blocks.get(key).image;
      style.width = style.height = `${BLOCK * this.side}px`;
      style.transform = `translate(${Math.round((column * BLOCK - x - 0.5) * this.side + width / 2)}px, ` +
        `${Math.round((row * BLOCK - y - 0.5) * this.side + height / 2)}px)`;
    }
    for (const [key, block] of this.blocks) if (!seen.has(key)) this.remove(key, block);
    Object.assign(this.middle.style, {width: `${this.side}px`, height: `${this.side}px`,
      left: `${width / 2 - this.side / 2}px`, top: `${height / 2 - this.side / 2}px`});
    this.saveWhole(Math.ceil(2 * across), Math.ceil(2 * down));
  }

  query(x, y, columns, rows) {
    const query = pictureQuery({...this.state, ...atPlace(exact(x), exact(y))}, this.view, this.runs);
    for (const [name, value] of Object.entries({columns, rows, spacing: this.state.spacing})) query.set(name, value);
    return query;
  }

  saveWhole(columns, rows) {
    const [x, y] = placeOf(this.state);
    const spacing = this.state.spacing;
    this.saves('/wall', this.query(x - Math.floor(columns / 2) * spacing, y - Math.floor(rows / 2) * spacing, columns, rows));
  }

  block(column, row) {
    const image = make('img', {alt: '', draggable: false});
    const control = new AbortController();
    const block = {image, control};
    const spacing = this.state.spacing;
    const address = `/wall?${this.query(column * BLOCK * spacing, row * BLOCK * spacing, BLOCK, BLOCK)}`;
    image.addEventListener('load', () => URL.revokeObjectURL(image.src));
    this.count(1);
    pool.run(() => fetchPicture(address, control.signal), control.signal).then((source) => {
      image.src = source;
      if (!control.signal.aborted) this.frame.prepend(image);
    }).catch((error) => {
      if (!control.signal.aborted) this.caption.textContent = error.message;
    }).finally(() => this.count(-1));
    return block;
  }

  count(more) {
    this.missing += more;
    this.busy(this.missing > 0);
  }

  remove(key, block) {
    block.control.abort();
    block.image.remove();
    this.blocks.delete(key);
  }

  clear() {
    for (const [key, block] of this.blocks) this.remove(key, block);
  }

  close() {
    this.clear();
    this.resized.disconnect();
  }
}
