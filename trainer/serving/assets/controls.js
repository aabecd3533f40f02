// The form beside the pictures: what it shows comes from the state, and what is changed in it goes there.

import {byId, make} from './make.js';
import {SEEDS} from './state.js';

const MOST_OPTIONS = 500; // of a list; of more, one types
const MOST_VIEWS = 6;
const STRENGTH = 4; // deviations of the code
const Z_STEPS = [['', 'none'], ['2', '2: mild'], ['1.5', '1.5'], ['1', '1'], ['0.75', '0.75'], ['0.5', '0.5: strict']];
const random = () => Math.floor(Math.random() * SEEDS);

export class Controls {
  constructor(runs, change) {
    Object.assign(this, {runs, change, built: ''});
    byId('controls').addEventListener('submit', (event) => event.preventDefault());
    for (const radio of document.querySelectorAll('[name=mode]')) {
      radio.addEventListener('change', () => change({mode: radio.value}));
    }
    const seed = (by) => change({seed: (this.state.seed + by + SEEDS) % SEEDS, dx: 0, dy: 0});
    this.onInput('seed', (input) => input.value !== '' && {seed: Number(input.value), dx: 0, dy: 0});
    this.onClick('previous', () => seed(-1));
    this.onClick('next', () => seed(1));
    this.onClick('random', () => change({seed: random(), dx: 0, dy: 0}));
    this.onClick('whole', () => change({dx: 0, dy: 0}));
    this.onInput('mix', (input) => ({mix: input.value}));
    this.onClick('random-mix', () => change({mix: String(random())}));
    this.onClick('no-mix', () => change({mix: ''}));
    this.onInput('share', (input) => ({share: Number(input.value)}));
    this.onInput('layers', (input) => ({layers: input.value}));
    this.onInput('seeds', (input) => ({seeds: input.value, playing: false}));
    this.onInput('steps', (input) => input.value !== '' && {steps: Number(input.value), playing: false});
    this.onClick('play', () => change({playing: !this.state.playing}));
    this.onClick('still', () => change({move: {}}));
    this.onClick('add', () => change({views: [...this.state.views, {...this.state.views.at(-1)}]}));
    this.onClick('copy', () => this.copy());
  }

  onClick(id, act) {
    byId(id).addEventListener('click', act);
  }

  onInput(id, act) {
    this.listen(byId(id), act);
  }

  // What the browser finds invalid is marked as such, and goes nowhere.
  listen(input, act) {
    input.addEventListener('input', () => {
      const changes = input.checkValidity() && act(input);
      if (changes) this.change(changes);
    });
  }

  show(state, address) {
    this.state = state;
    this.build();
    const first = this.runs.find((run) => run.name === state.views[0].run);
    document.querySelector(`[name=mode][value=${state.mode}]`).checked = true;
    byId('seed-row').hidden = state.mode === 'film';
    byId('film-row').hidden = state.mode !== 'film';
    byId('mixing').hidden = state.mode === 'film';
    byId('layers-row').hidden = !(first?.layers > 2);
    byId('place').hidden = state.mode === 'film' || !(state.dx || state.dy);
    byId('offset').textContent = `${state.dx.toFixed(2)}, ${state.dy.toFixed(2)}`;
    for (const name of ['seed', 'mix', 'share', 'layers', 'seeds', 'steps']) put(byId(name), state[name]);
    byId('share-value').textContent = `${Math.round(100 * state.share)} %`;
    byId('play').textContent = state.playing ? 'Stop' : 'Play';
    for (const input of document.querySelectorAll('[data-show]')) this.showInput(input);
    byId('add').disabled = state.views.length >= MOST_VIEWS;
    byId('link').value = address;
  }

  showInput(input) {
    const [kind, name] = [input.dataset.show, input.dataset.name];
    const {state} = this;
    const value = {class: state.class, label: state.labels[name] ?? '', truncation: state.truncation || input.max,
      move: state.move[name] ?? 0}[kind];
    put(input, kind === 'truncation' && input.type !== 'range' ? state.truncation : value);
    if (input.output) input.output.textContent = input.output.say(input.value);
  }

  // What depends on the runs is built anew when others are looked at.
  build() {
    const views = JSON.stringify(this.state.views);
    if (views === this.built) return;
    this.built = views;
    const run = this.runs.find((one) => one.name === this.state.views[0].run) ?? this.runs[0];
    byId('labels').replaceChildren(...this.labels(run));
    byId('truncation-row').replaceChildren(...this.truncation(run));
    const directions = Array.from({length: run.directions}, (_, k) => this.direction(k));
    byId('directions').replaceChildren(...directions);
    byId('moving').hidden = !run.directions;
    byId('beside').open ||= this.state.views.length > 1;
    byId('chosen').replaceChildren(...this.state.views.map((view, k) => this.chooser(view, k)));
  }

  labels(run) {
    const rows = [];
    const ask = (kind, name, text, classes, length) => {
      const id = `${kind}-${rows.length}`;
      const input = field(id, classes, length);
      Object.assign(input.dataset, {show: kind, name});
      this.listen(input, () => (kind === 'class' ? {class: input.value}
        : {labels: {...this.state.labels, [name]: input.value}}));
      rows.push(make('div', {className: 'row'}, make('label', {htmlFor: id, textContent: text}), input, ...(input.known ?? [])));
    };
    if (run.classes.length) ask('class', '', 'Class', run.classes);
    for (const column of run.labels) ask('label', column.name, column.name, column.kind === 'class' ? column.classes : null, column.length);
    return rows;
  }

  truncation(run) {
    const label = make('label', {htmlFor: 'truncation', textContent: 'Truncation'});
    const input = run.truncation === 'z' ? choice('truncation', Z_STEPS)
      : make('input', {id: 'truncation', type: 'range', min: '0', max: '1', step: '0.05'});
    input.dataset.show = 'truncation';
    if (input.type === 'range') input.output = output('truncation', (value) => (value === '1' ? 'none' : value));
    this.listen(input, () => ({truncation: input.value === input.max ? '' : input.value}));
    return [label, input, ...(input.output ? [input.output] : [])];
  }

  direction(k) {
    const id = `direction-${k}`;
    const input = make('input', {id, type: 'range', min: -STRENGTH, max: STRENGTH, step: 0.1});
    Object.assign(input.dataset, {show: 'move', name: k});
    input.output = output(id, (value) => Number(value).toFixed(1));
    this.listen(input, () => ({move: {...this.state.move, [k]: Number(input.value)}}));
    return make('div', {className: 'row'}, make('label', {htmlFor: id, textContent: `Direction ${k + 1}`}), input, input.output);
  }

  chooser(view, k) {
    const views = (changed) => this.change({views: this.state.views.map((one, i) => (i === k ? changed : one))});
    const names = [...new Set([...this.runs.map((one) => one.name), view.run])].map((name) => [name, name]);
    const run = choice(`run-${k}`, names, view.run);
    run.setAttribute('aria-label', `Run ${k + 1}`);
    run.addEventListener('change', () => views({run: run.value, checkpoint: ''}));
    const known = this.runs.find((one) => one.name === view.run)?.checkpoints ?? [];
    const seen = known.map((one) => [one.name, `${one.images_seen.toLocaleString('en')} seen`]);
    const checkpoint = choice(`checkpoint-${k}`, [['', 'newest'], ...seen], view.checkpoint);
    checkpoint.setAttribute('aria-label', `Checkpoint of run ${k + 1}`);
    checkpoint.addEventListener('change', () => views({run: view.run, checkpoint: checkpoint.value}));
    const away = make('button', {type: 'button', textContent: '×', disabled: this.state.views.length < 2});
    away.setAttribute('aria-label', `Take away run ${k + 1}`);
    away.addEventListener('click', () => this.change({views: this.state.views.filter((_, i) => i !== k)}));
    return make('li', {className: 'row'}, run, checkpoint, away);
  }

  async copy() {
    byId('link').select();
    try {
      await navigator.clipboard.writeText(byId('link').value); // browsers allow it to this machine and to https alone
      byId('said').textContent = 'The link is copied.';
    } catch {
      byId('said').textContent = 'The link is selected: copy it.';
    }
  }
}

// An input with the focus is being typed in: its text is left alone as long as it means the same.
function put(input, value) {
  if (document.activeElement === input && (input.value === '' || Number(input.value) === value)) return;
  if (input.value !== String(value)) input.value = value;
}

function choice(id, pairs, value = '') {
  return make('select', {id}, ...pairs.map(([key, text]) => make('option', {value: key, textContent: text, selected: key === value})));
}

function output(id, say) {
  return Object.assign(make('output'), {htmlFor: id, say});
}

// A label's input: a list of classes, a text where there are too many, or numbers.
function field(id, classes, length) {
  if (!classes && length === 1) return make('input', {id, type: 'number', step: 'any', placeholder: 'as in training'});
  if (classes && classes.length <= MOST_OPTIONS) {
    return choice(id, [['', 'as in training'], ...classes.map((name) => [name, name])]);
  }
  const input = make('input', {id, type: 'text', maxLength: 200, placeholder: 'as in training'});
  if (classes) {
    input.known = [make('datalist', {id: `${id}-list`}, ...classes.map((name) => make('option', {value: name})))];
    input.setAttribute('list', `${id}-list`);
  }
  return input;
}
