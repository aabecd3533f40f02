// The page: from the state to views and controls, and from them back to the state.

import {Controls} from './controls.js';
import {byId} from './make.js';
import {FilmView, PictureView} from './pictures.js';
import {problemOf} from './requests.js';
import {readState, writeState} from './state.js';
import {WallView} from './wall.js';

const ADDRESS_MS = 300; // browsers allow some changes of the address a second, and no more

class Page {
  constructor(runs) {
    this.runs = runs;
    this.state = readState(location.search, runs);
    this.controls = new Controls(runs, (changes) => this.change(changes));
    this.views = [];
    this.shown = '';
    this.show();
    addEventListener('popstate', () => {
      this.state = readState(location.search, runs);
      this.show();
    });
  }

  change(changes) {
    this.state = {...this.state, ...changes};
    clearTimeout(this.timer);
    this.timer = setTimeout(() => history.replaceState(null, '', this.address()), ADDRESS_MS);
    this.show();
  }

  address() {
    return `${location.origin}/?${writeState(this.state)}`;
  }

  show() {
    const wanted = JSON.stringify([this.state.mode, this.state.views]);
    if (wanted !== this.shown) {
      this.shown = wanted;
      for (const view of this.views) view.close();
      this.views = this.state.views.map((view) => this.view(view));
      byId('views').replaceChildren(...this.views.map((view) => view.element));
    }
    this.controls.show(this.state, this.address());
    for (const view of this.views) view.show(this.state);
  }

  view(view) {
    if (this.state.mode === 'wall') return new WallView(view, this.runs, (changes) => this.change(changes));
    return this.state.mode === 'film' ? new FilmView(view, this.runs) : new PictureView(view, this.runs);
  }
}

try {
  const response = await fetch('/runs');
  if (!response.ok) throw new Error(await problemOf(response));
  const {runs} = await response.json();
  document.title = `${runs.map((run) => run.name).join(', ')} – lienzo`;
  new Page(runs);
} catch (error) {
  byId('problem').textContent = `The pictures cannot be shown: ${error.message}`;
}
