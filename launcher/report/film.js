// Shows one picture of each track at a time, by a slider or by itself.
for (const film of document.querySelectorAll('.film')) {
  const [slider, button, output] = ['input', 'button', 'output'].map((name) => film.querySelector(name));
  const times = film.dataset.times.split(' ').map(Number);
  const number = new Intl.NumberFormat('en');
  let timer = 0;

  const show = () => {
    const now = times[slider.value];
    for (const strip of film.querySelectorAll('.strip')) {
      const figures = [...strip.children];
      const past = figures.filter((figure) => Number(figure.dataset.at) <= now);
      const shown = past.length ? past[past.length - 1] : figures[0];
      for (const figure of figures) figure.hidden = figure !== shown;
    }
    const words = `${number.format(now)} ${film.dataset.unit}`;
    output.textContent = words;
    slider.setAttribute('aria-valuetext', words);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = 'Play';
  };
  const play = () => {
    if (slider.value === slider.max) slider.value = '0';
    show();
    button.textContent = 'Pause';
    timer = setInterval(() => {
      slider.stepUp();
      show();
      if (slider.value === slider.max) stop();
    }, 500);
  };

  film.classList.add('one');
  film.querySelector('.player').hidden = times.length < 2;
  // Nothing scrolls any more, so nothing is to be reached by Tab.
  for (const strip of film.querySelectorAll('.strip')) strip.removeAttribute('tabindex');
  slider.addEventListener('input', () => { stop(); show(); });
  button.addEventListener('click', () => (timer ? stop() : play()));
  show();
}
