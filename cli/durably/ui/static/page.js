// Makes the pages quicker to use. Without it every page works, by links and forms.
'use strict';

const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];

const fetchPage = async url => {
  const answer = await fetch(url, { credentials: 'same-origin' });
  if (!answer.ok) throw new Error(answer.statusText);
  return new DOMParser().parseFromString(await answer.text(), 'text/html');
};

// -- live: when the server says that something changed, the page takes its own new content in

const isTyping = () => {
  const on = document.activeElement;
  return on && ['INPUT', 'TEXTAREA'].includes(on.tagName) && on.value !== on.defaultValue;
};

const closedDetails = () => $$('#live details').map((each, place) => [place, each.open]);

async function refresh() {
  const live = $('#live');
  if (!live || isTyping()) return false;
  const fresh = $('#live', await fetchPage(location.href));
  const states = closedDetails();
  const was = picked()?.dataset.step ?? picked()?.dataset.href;
  live.replaceChildren(...fresh.childNodes);
  live.dataset.seen = fresh.dataset.seen;
  const details = $$('#live details');
  for (const [place, open] of states) if (details[place]) details[place].open = open;
  pick(rows().find(row => (row.dataset.step ?? row.dataset.href) === was));
  watchMore();
  return true;
}

// How many times as long as a look took the next one waits: a long run must not keep the server busy.
const SHARE = 9;
let looking = false, again = false;

async function look() {
  if (looking) { again = true; return; }
  looking = true;
  const began = performance.now();
  missed = !(await refresh().catch(() => false));
  await new Promise(done => setTimeout(done, SHARE * (performance.now() - began)));
  looking = false;
  if (again) { again = false; look(); }
}

// -- an answer while it is written: it stands nowhere yet, and goes when its step has a record

const writing = { of: '', step: '' };

function write({ step, attempt, kind, text, abandoned }) {
  const place = $('#writing');
  if (!place || abandoned) return;
  const of = `${step} ${attempt} ${kind}`;
  if (of !== writing.of) {
    Object.assign(writing, { of, step });
    $('.who', place).textContent = kind === 'text' ? `${step} writes` : kind === 'thinking' ? `${step} thinks` : `${step} calls a tool`;
    $('.text', place).textContent = '';
  }
  $('.text', place).textContent += text;
  place.hidden = false;
}

function stopWriting(step) {
  if (step && step !== writing.step) return;
  writing.of = '';
  $('#writing').hidden = true;
}

let missed = false;
const KINDS = ['run_started', 'step_began', 'attempt_failed', 'run_waiting', 'step_ended', 'run_ended', 'stands'];

function listen() {
  const live = $('#live');
  if (!live) return;
  const pulse = $('#pulse');
  const address = live.dataset.live;
  const since = live.dataset.from === undefined ? `seen=${live.dataset.seen}` : `from=${live.dataset.from}`;
  const source = new EventSource(`${address}${address.includes('?') ? '&' : '?'}${since}`);
  const say = up => {
    pulse.classList.toggle('off', !up);
    pulse.textContent = up ? 'live' : 'no connection';
    pulse.hidden = false;
  };
  source.onopen = () => say(true);
  source.onerror = () => say(false);
  source.addEventListener('changed', look);
  for (const kind of KINDS) source.addEventListener(kind, event => {
    if (event.data && kind !== 'run_waiting') stopWriting(JSON.parse(event.data).step);
    look();
  });
  source.addEventListener('delta', event => write(JSON.parse(event.data)));
  document.addEventListener('focusout', () => { if (missed) look(); });
  addEventListener('pagehide', () => source.close());
}

// -- the panel: a step beside the waterfall

async function openPanel(url) {
  const panel = $('#panel');
  if (!panel) { location.href = url; return; }
  const step = $('#step', await fetchPage(url));
  const close = document.createElement('button');
  close.className = 'close';
  close.textContent = '×';
  close.setAttribute('aria-label', 'Close');
  close.onclick = closePanel;
  panel.replaceChildren(close, step);
  panel.hidden = false;
  panel.scrollTop = 0;
}

function closePanel() {
  const panel = $('#panel');
  if (panel) panel.hidden = true;
}

// -- rows: picked by keys, opened by a click anywhere on them

const rows = () => $$('[data-row]');
const picked = () => $('.picked');

function pick(row) {
  picked()?.classList.remove('picked');
  row?.classList.add('picked');
  row?.scrollIntoView({ block: 'nearest' });
}

function move(by) {
  const all = rows();
  const place = all.indexOf(picked());
  const next = all[Math.max(0, Math.min(all.length - 1, place < 0 ? 0 : place + by))];
  pick(next);
  if (next?.dataset.step && $('#panel') && !$('#panel').hidden) openPanel(next.href);
}

function open(row) {
  if (!row) return;
  if (row.dataset.step) openPanel(row.href);
  else location.href = row.dataset.href;
}

document.addEventListener('click', event => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  const step = event.target.closest('a[data-step], a[data-panel]');
  if (step && $('#panel')) {
    event.preventDefault();
    if (step.dataset.step) pick(step);
    openPanel(step.href);
    return;
  }
  const row = event.target.closest('tr[data-row]');
  if (row && !event.target.closest('a') && !getSelection().toString()) location.href = row.dataset.href;
});

document.addEventListener('submit', event => {
  const question = event.submitter?.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// -- the rest of a long waterfall, as it is scrolled to

let observer;
function watchMore() {
  observer?.disconnect();
  const all = $$('[data-more]');
  if (!all.length) return;
  const load = async more => {
    observer.unobserve(more);
    const fresh = await fetchPage(more.href);
    more.replaceWith(...fresh.body.childNodes);
    watchMore();
  };
  observer = new IntersectionObserver(seen => {
    for (const each of seen) if (each.isIntersecting) load(each.target);
  }, { rootMargin: '900px' });
  for (const more of all) {
    more.onclick = event => { event.preventDefault(); load(more); };
    observer.observe(more);
  }
}

// -- keys

const keys = {
  j: () => move(1), k: () => move(-1),
  Enter: () => open(picked()),
  '/': () => $('#filter') ? $('#filter').focus() : (location.href = '/runs'),
  Escape: () => { closePanel(); document.activeElement?.blur(); },
  r: () => { location.href = '/runs'; },
  a: () => { location.href = '/approvals'; },
  t: () => $('[data-key=t]')?.click(),
  c: () => $('[data-key=c]')?.click(),
  '?': () => $('#keys').showModal(),
};

document.addEventListener('keydown', event => {
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  const typing = ['INPUT', 'TEXTAREA', 'SELECT'].includes(event.target.tagName);
  const onControl = event.key === 'Enter' && ['A', 'BUTTON', 'SUMMARY'].includes(event.target.tagName);
  if ((typing && event.key !== 'Escape') || onControl || $('#keys').open) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

listen();
watchMore();
