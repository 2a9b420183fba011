// What a person with a keyboard, a narrow screen or weak eyes would complain about on this page.
// arguments: the language that <html lang> is to name. Gives a list of sentences; empty is good.
const [lang] = arguments;
const complaints = [];
const complain = (what, element) => {
  const name = element ? ` <${element.tagName.toLowerCase()}${element.id ? '#' + element.id : ''}>` : '';
  const text = element ? ` ${JSON.stringify((element.textContent ?? '').trim().slice(0, 40))}` : '';
  complaints.push(what + name + text);
};
const root = document.documentElement;
const all = [...document.body.querySelectorAll('*')];
const visible = all.filter(element =>
  element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) &&
  element.getBoundingClientRect().width > 1 && element.getBoundingClientRect().height > 1);

// The document.
if (!document.title.trim()) complain('no title');
if (root.lang !== lang) complain(`the language is ${root.lang}, not ${lang}`);
const headings = visible.filter(element => element.tagName === 'H1');
if (headings.length !== 1) complain(`${headings.length} headings h1`);
let level = 1;
for (const element of visible.filter(element => /^H[1-6]$/.test(element.tagName))) {
  const own = Number(element.tagName[1]);
  if (own > level + 1) complain(`a heading skips from h${level} to h${own}`, element);
  level = own;
}
const ids = all.map(element => element.id).filter(Boolean);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) complain(`the id ${id} twice`);
if (document.querySelectorAll('main').length !== 1) complain('not one main');

// Names of what can be used (WCAG 1.3.1, 4.1.2), and how large it is (2.5.8).
const named = element => Boolean(
  element.labels?.length || element.getAttribute('aria-label')?.trim() ||
  element.getAttribute('aria-labelledby')?.split(/\s+/).some(id => document.getElementById(id)?.textContent.trim()));
for (const element of visible) {
  const tag = element.tagName;
  if (['INPUT', 'SELECT', 'TEXTAREA'].includes(tag) && !named(element)) complain('no label', element);
  if (['BUTTON', 'A', 'SUMMARY'].includes(tag) && !element.textContent.trim() && !named(element)) complain('no name', element);
  if (tag === 'IMG' && !element.hasAttribute('alt')) complain('a picture without a text', element);
  if (tag === 'svg' && !element.closest('[aria-hidden=true]') && !named(element) && !element.querySelector('title')
      && !element.closest('[role=img]')) complain('a picture without a text', element);
  if (element.getAttribute('aria-describedby')?.split(/\s+/).some(id => !document.getElementById(id))) complain('described by nothing', element);
  if (['INPUT', 'SELECT', 'BUTTON', 'SUMMARY', 'A'].includes(tag)) {
    let box = element.getBoundingClientRect();
    // The label of a radio button can be hit too.
    if (element.labels?.length && ['radio', 'checkbox'].includes(element.type)) box = element.labels[0].getBoundingClientRect();
    if (box.width < 24 || box.height < 24) complain(`${Math.round(box.width)}×${Math.round(box.height)} is small to hit`, element);
  }
}

// The width (1.4.10), and texts that are cut or lie on each other.
if (root.scrollWidth > root.clientWidth) complain(`${root.scrollWidth} wide on a screen of ${root.clientWidth}`);
for (const element of visible) {
  const box = element.getBoundingClientRect();
  if (box.right > root.clientWidth + 1 || box.left < -1) complain('leaves the screen', element);
  const style = getComputedStyle(element);
  if (style.overflowX !== 'visible' && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1
      && !['INPUT', 'SELECT'].includes(element.tagName)) complain('cuts its text', element);
}
const leaves = visible.filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
for (let i = 0; i < leaves.length; i++) {
  for (let j = i + 1; j < leaves.length; j++) {
    if (leaves[i].contains(leaves[j]) || leaves[j].contains(leaves[i])) continue;
    if (leaves[i].tagName === 'OPTION' || leaves[j].tagName === 'OPTION') continue;
    const [one, two] = [leaves[i].getBoundingClientRect(), leaves[j].getBoundingClientRect()];
    const wide = Math.min(one.right, two.right) - Math.max(one.left, two.left);
    const high = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
    if (wide > 2 && high > 2) complain(`lies on ${JSON.stringify(leaves[j].textContent.trim().slice(0, 30))}`, leaves[i]);
  }
}

// Contrast of text (1.4.3). Any colour is read by painting it.
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const painted = colour => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => part * a / 255 + below[at] * (1 - a / 255));
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
const ground = element => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(painted(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), dark ? [18, 18, 18] : [255, 255, 255]);
};
const light = colour => {
  const [r, g, b] = colour.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
for (const element of leaves) {
  const style = getComputedStyle(element);
  const below = ground(element);
  const [one, two] = [light(over(painted(style.color), below)), light(below)];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (!element.closest(':disabled') && ratio < (large ? 3 : 4.5)) complain(`contrast ${ratio.toFixed(2)}`, element);
  if (size < 12) complain(`${size} px is small to read`, element);
}
return complaints;
