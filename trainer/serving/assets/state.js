// What is shown, as one object. The address of the page holds all of it, so a link shows the same again.

export const SEEDS = 1000000;
const ROW = 1000; // seeds of the plane
const DEFAULTS = {
  mode: 'picture', seed: 0, dx: 0, dy: 0, class: '', truncation: '', mix: '', share: 0.5, layers: 'all',
  seeds: '0-3', steps: 12, spacing: 1,
};
const MODES = ['picture', 'wall', 'film'];

export function readState(search, runs) {
  const given = new URLSearchParams(search);
  const state = {...DEFAULTS, labels: {}, move: {}, views: []};
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (!given.has(name)) continue;
    const text = given.get(name);
    if (typeof value !== 'number') state[name] = text;
    else if (text !== '' && Number.isFinite(Number(text))) state[name] = Number(text);
  }
  if (!MODES.includes(state.mode)) state.mode = DEFAULTS.mode;
  state.seed = wrap(Math.round(state.seed), SEEDS);
  state.spacing = Math.min(1, Math.max(1 / 64, state.spacing));
  for (const text of given.getAll('label')) {
    const at = text.indexOf('=');
    if (at > 0) state.labels[text.slice(0, at)] = text.slice(at + 1);
  }
  for (const text of given.getAll('move')) {
    const [k, far] = text.split(':').map(Number);
    if (Number.isInteger(k) && Number.isFinite(far)) state.move[k] = far;
  }
  for (const text of given.getAll('view')) {
    const at = text.lastIndexOf('@');
    state.views.push(at < 0 ? {run: text, checkpoint: ''} : {run: text.slice(0, at), checkpoint: text.slice(at + 1)});
  }
  if (!state.views.length) state.views = runs.map((run) => ({run: run.name, checkpoint: ''}));
  state.views = state.views.slice(0, 6);
  return state;
}

export function writeState(state) {
  const out = new URLSearchParams();
  for (const view of state.views) out.append('view', `${view.run}@${view.checkpoint}`);
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (state[name] !== value) out.append(name, state[name]);
  }
  appendLabels(out, state.labels);
  appendMoves(out, state.move);
  return out.toString();
}

function appendLabels(out, labels) {
  for (const [name, value] of Object.entries(labels)) if (value !== '') out.append('label', `${name}=${value}`);
}

function appendMoves(out, move, most = Infinity) {
  for (const [k, far] of Object.entries(move)) if (far !== 0 && k < most) out.append('move', `${k}:${far}`);
}

// The parameters of a view's pictures; those that its run does not know are left out.
export function styleOf(state, view, runs) {
  const run = runs.find((one) => one.name === view.run);
  const first = runs.find((one) => one.name === state.views[0].run);
  const out = new URLSearchParams({run: view.run});
  if (view.checkpoint) out.set('checkpoint', view.checkpoint);
  if (state.class !== '' && (!run || run.classes.length)) out.set('class', state.class);
  const columns = run ? run.labels.map((column) => column.name) : Object.keys(state.labels);
  appendLabels(out, Object.fromEntries(Object.entries(state.labels).filter(([name]) => columns.includes(name))));
  if (state.truncation !== '' && (!run || !first || run.truncation === first.truncation)) {
    out.set('truncation', state.truncation);
  }
  appendMoves(out, state.move, run ? run.directions : Infinity);
  return out;
}

export function pictureQuery(state, view, runs) {
  const out = styleOf(state, view, runs);
  const run = runs.find((one) => one.name === view.run);
  out.set('seed', state.seed);
  if (state.dx) out.set('dx', state.dx);
  if (state.dy) out.set('dy', state.dy);
  if (state.mix !== '') {
    out.set('mix', state.mix);
    out.set('share', state.share);
    if (state.layers !== 'all' && (!run || run.layers > 2)) out.set('layers', state.layers);
  }
  return out;
}

// The plane of seeds: a column and a row of it, and the seed that is nearest.
export function placeOf(state) {
  return [(state.seed % ROW) + state.dx, Math.floor(state.seed / ROW) + state.dy];
}

export function atPlace(x, y) {
  const [column, row] = [Math.round(x), Math.round(y)];
  return {seed: wrap(column, ROW) + ROW * wrap(row, SEEDS / ROW), dx: exact(x - column), dy: exact(y - row)};
}

export const exact = (value) => Math.round(value * 1e6) / 1e6;
export const wrap = (value, size) => ((value % size) + size) % size;
