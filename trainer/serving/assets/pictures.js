// One view: a picture or a film of one checkpoint, with what it is and a link that saves it.

import {make} from './make.js';
import {Latest} from './requests.js';
import {pictureQuery, styleOf} from './state.js';

export class View {
  constructor(kind, view, runs) {
    Object.assign(this, {kind, view, runs});
    this.run = runs.find((one) => one.name === view.run);
    const seen = this.run?.checkpoints.find((one) => one.name === (view.checkpoint || this.run.newest))?.images_seen;
    const small = seen === undefined ? view.checkpoint : `${seen.toLocaleString('en')} pictures seen`;
    this.frame = make('div', {className: 'frame'});
    this.caption = make('span');
    this.save = make('a', {textContent: 'Save'});
    this.save.setAttribute('aria-label', `Save this ${kind} of ${view.run}`);
    this.element = make('section', {className: `view ${kind}`},
      make('h2', {}, `${view.run} `, make('small', {textContent: small})), this.frame,
      make('p', {className: 'foot'}, this.caption, this.save));
    this.element.setAttribute('aria-label', [view.run, small].filter(Boolean).join(', '));
  }

  busy(is) {
    this.frame.setAttribute('aria-busy', is);
  }

  saves(path, query) {
    const kept = new URLSearchParams(query);
    kept.set('download', 'true');
    this.save.href = `${path}?${kept}`;
  }

  fail(message) {
    this.frame.replaceChildren(make('p', {className: 'error', textContent: message}));
  }
}

class Still extends View {
  constructor(kind, view, runs) {
    super(kind, view, runs);
    this.image = make('img');
    this.image.addEventListener('load', () => URL.revokeObjectURL(this.image.src));
    this.latest = new Latest((source) => this.put(source), (message) => this.fail(message), (is) => this.busy(is));
    // Before the picture is there its place is, so nothing jumps.
    if (this.run) this.frame.style.aspectRatio = `${this.run.width} / ${this.run.height}`;
  }

  put(source) {
    this.image.src = source;
    if (!this.image.isConnected) this.frame.replaceChildren(this.image);
  }

  close() {
    this.latest.close();
  }
}

export class PictureView extends Still {
  constructor(view, runs) {
    super('picture', view, runs);
  }

  show(state) {
    const query = pictureQuery(state, this.view, this.runs);
    this.caption.textContent = describe(state);
    this.image.alt = `Picture by ${this.view.run}: ${describe(state)}`;
    this.saves('/generate', query);
    this.latest.want(`/generate?${query}`);
  }
}

export class FilmView extends Still {
  constructor(view, runs) {
    super('film', view, runs);
  }

  show(state) {
    const query = styleOf(state, this.view, this.runs);
    const first = new URLSearchParams(query);
    for (const name of ['seeds', 'steps']) query.set(name, state[name]);
    first.set('seed', parseInt(state.seeds, 10) || 0);
    this.caption.textContent = `seeds ${state.seeds}`;
    this.image.alt = `Film by ${this.view.run} through the seeds ${state.seeds}${state.playing ? '' : ', its first picture'}`;
    this.saves('/interpolate', query);
    this.latest.want(state.playing ? `/interpolate?${query}` : `/generate?${first}`);
  }
}

export function describe(state) {
  const parts = [`seed ${state.seed}`];
  if (state.dx || state.dy) parts[0] = `${state.dx.toFixed(2)} and ${state.dy.toFixed(2)} from seed ${state.seed}`;
  if (state.mix !== '') parts.push(`${Math.round(100 * state.share)} % of seed ${state.mix}`);
  if (state.class !== '') parts.push(`class ${state.class}`);
  if (state.truncation !== '') parts.push(`truncation ${state.truncation}`);
  return parts.join(', ');
}
