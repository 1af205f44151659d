// Draws what /monitor/data tells, once a second. The chart library is uPlot, kept beside this file.

const SECONDS = 60;
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const units = (n) => `${number.format(n)} ${n === 1 ? "unit" : "units"}`;
const narrow = matchMedia("(max-width: 30rem)");
const dark = matchMedia("(prefers-color-scheme: dark)");

let latest; // what was told last

// --- data

// One request at a time, not a stream: browsers open only six connections to a host, for all tabs together.
let timer, asked = 0;
async function poll() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const url = `monitor/data?client=${encodeURIComponent($("client").value)}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(5000), cache: "no-store" });
    if (!response.ok) throw new Error(`it answers ${response.status}`);
    const data = await response.json();
    if (turn === asked) show(data);
  } catch {
    if (turn === asked) tell("away", "The application does not answer. This is what it told last.");
  }
  if (turn === asked) timer = setTimeout(poll, 1000);
}

function tell(status, banner) {
  if ($("status").textContent !== status) $("status").textContent = status;
  $("status").classList.toggle("away", status !== "live");
  $("banner").hidden = !banner;
  if ($("banner").textContent !== banner) $("banner").textContent = banner;
}

function show(data) {
  latest = data;
  const { problem } = data;
  // The time of day, because an alert that changed each second would be read out each second.
  if (problem) tell("away", `${problem.text}, since ${clock.format(problem.since)}. ${problem.meanwhile}`);
  else tell("live", "");
  for (const name of ["admitted", "refused"]) {
    $(name).textContent = number.format(data[name].minute);
    $(`${name}-all`).textContent = number.format(data[name].all);
  }
  showRate(data);
  showWindow(data);
  fill("near", data.near, (row) => {
    const room = `room in ${number.format(Math.ceil(row.next / 1000))} s`;
    return [row.client, row.label, [`${number.format(row.used)} of ${number.format(row.limit)}`, room]];
  });
  $("nobody-near").textContent = problem ? "Not known while Redis cannot be read." : "Nobody has used 75 % of a limit.";
  fill("top", data.clients, (row) => [row.client, row.label, [...both(row.refused), `${number.format(row.ago)} s ago`]]);
  fill("policies", data.policies, (row) => [row.policy, row.names.join(", "), both(row.admitted), both(row.refused)]);
}

const both = ({ minute, all }) => [`${number.format(minute)} /min`, `${number.format(all)} in all`];

// --- charts

const charts = {};
// A chart has fixed colours and a fixed number of bars, so a change of either makes a new one.
for (const query of [dark, narrow]) {
  query.addEventListener("change", () => {
    for (const name of Object.keys(charts)) charts[name].destroy(), delete charts[name];
    if (latest) showRate(latest), showWindow(latest);
  });
}
const resized = new ResizeObserver(() => {
  for (const chart of Object.values(charts)) chart.setSize(size(chart.root.parentElement));
});
for (const element of document.querySelectorAll(".chart")) resized.observe(element);
const size = (element) => ({ width: element.clientWidth, height: element.clientHeight });

function axes(span) {
  const common = { stroke: color("faint"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
  const ago = (_, splits) => splits.map((x) => (x === 0 ? "now" : `−${number.format(-x)} s`));
  // Few enough that they stay apart on a phone.
  const splits = () => (narrow.matches ? [1, 0.5, 0] : [1, 0.75, 0.5, 0.25, 0]).map((part) => (part ? -span * part : 0));
  return [
    { ...common, values: ago, splits, gap: 10, size: 34, grid: { show: false } },
    { ...common, size: 52, space: 28, incrs: [1, 2, 5].flatMap((n) => [...Array(12).keys()].map((e) => n * 10 ** e)).sort((a, b) => a - b),
      values: (_, splits) => splits.map((y) => number.format(y)) },
  ];
}

function stripes() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const pen = canvas.getContext("2d");
  pen.strokeStyle = color("refused");
  pen.lineWidth = 2;
  for (const x of [-8, 0, 8]) pen.stroke(new Path2D(`M${x},8 l8,-8`));
  return pen.createPattern(canvas, "repeat");
}

function draw(name, element, span, options, data) {
  charts[name] ??= new uPlot(
    { ...size(element), axes: axes(span), legend: { show: false }, cursor: { show: false }, padding: [14, 22, 0, 0], ...options() },
    data,
    element,
  );
  charts[name].setData(data);
}

// A bar for each second, fewer on a phone so that they stay apart. Where Redis was not read there is a band.
function showRate({ seconds, gaps }) {
  const count = narrow.matches ? SECONDS / 2 : SECONDS;
  const x = Array.from({ length: count }, (_, i) => i - count + 1);
  const shown = seconds.slice(-count);
  const admitted = shown.map((second) => second?.[0] || null);
  const sum = shown.map((second) => second && (second[0] + second[1] || null));
  const bars = uPlot.paths.bars({ size: [0.7, 24], align: -1 });
  const options = () => ({
    scales: {
      x: { time: false, range: [-count, 0] },
      y: { range: (_, __, most) => [0, Math.max(5, most * 1.1)] },
    },
    // The admitted part is drawn over the sum, so the visible rest is what was refused.
    series: [
      {},
      { paths: bars, stroke: color("refused"), fill: stripes(), width: 1, points: { show: false } },
      { paths: bars, stroke: color("admitted"), fill: color("admitted"), width: 1, points: { show: false } },
    ],
    hooks: { drawClear: [bands] },
  });
  draw("rate", $("rate-chart"), count, options, [x, sum, admitted]);
  charts.rate.gaps = gaps.slice(-count);
  $("gap").hidden = !charts.rate.gaps.includes(true);
  charts.rate.redraw();
}

function bands(chart) {
  const { ctx, bbox } = chart;
  const count = chart.gaps?.length;
  for (let i = 0; i < count; i++) {
    if (!chart.gaps[i]) continue;
    const from = i;
    while (i < count && chart.gaps[i]) i++;
    const [left, right] = [from, i].map((second) => bbox.left + (bbox.width * second) / count);
    ctx.save();
    ctx.fillStyle = color("gap");
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.strokeStyle = color("edge");
    ctx.strokeRect(left, bbox.top, right - left, bbox.height);
    ctx.restore();
  }
}

// Every hit that counts is a step up. It leaves the window, and the picture, on the left.
function showWindow({ window }) {
  const known = window && !window.error;
  $("window-chart").hidden = !known;
  $("more").textContent = "";
  if (!known) {
    if (window) $("usage").textContent = window.error;
    return;
  }
  const span = window.milliseconds / 1000;
  // Of a very busy client only the newest hits are told; the others are where the line begins.
  const sum = window.hits.reduce((total, [, cost]) => total + cost, 0);
  const x = [-span], used = [window.used - sum];
  for (const [ago, cost] of window.hits) {
    x.push(-ago / 1000);
    used.push(used.at(-1) + cost);
  }
  x.push(0);
  used.push(used.at(-1));
  $("usage").textContent =
    `${number.format(window.used)} of ${units(window.limit)} in the last ${number.format(span)} s.` +
    (window.used ? ` The oldest hit leaves in ${(window.next_after / 1000).toFixed(1)} s.` : "");
  $("more").textContent = window.label + (window.used > window.limit ? `. ${overLimit(window)}` : "");

  const name = `window ${window.limit} ${span}`;
  for (const other of Object.keys(charts)) {
    if (other.startsWith("window") && other !== name) charts[other].destroy(), delete charts[other];
  }
  const options = () => ({
    scales: {
      x: { time: false, range: [-span, 0] },
      y: { range: (_, __, most) => [0, Math.max(window.limit, most) * 1.2 || 1] },
    },
    series: [
      {},
      {
        paths: uPlot.paths.stepped({ align: 1 }),
        stroke: color("admitted"),
        fill: `${color("admitted")}33`,
        width: 2,
        // The first and the last are the edges of the window, not hits.
        points: { show: true, size: 7, fill: color("card"), filter: (u) => [...u.data[0].keys()].slice(1, -1) },
      },
      { stroke: color("refused"), width: 2, dash: [8, 5], points: { show: false } },
    ],
    hooks: {
      draw: [(u) => {
        u.ctx.fillStyle = color("refused");
        u.ctx.font = `${13 * devicePixelRatio}px system-ui, sans-serif`;
        u.ctx.textAlign = "left";
        u.ctx.textBaseline = "bottom";
        const [left, top] = [u.bbox.left + 6 * devicePixelRatio, u.valToPos(window.limit, "y", true)];
        u.ctx.fillText(`limit ${number.format(window.limit)}`, left, top - 4 * devicePixelRatio);
      }],
    },
  });
  draw(name, $("window-chart"), span, options, [x, used, x.map(() => window.limit)]);
}

function overLimit({ strict }) {
  return strict
    ? "It is more than the limit because refused attempts count as well (STRICT): only waiting helps."
    : "It is more than the limit because usage was recorded afterwards (FORCE), or the limit was lowered.";
}

// --- tables

// Keep the rows and change only their text, so that no button is replaced while somebody clicks it.
function fill(id, data, columns) {
  const { rows } = $(id);
  data.forEach((item, i) => {
    const [name, label, ...numbers] = columns(item);
    const row = rows[i] ?? newRow(id);
    const [first, ...others] = row.cells;
    put(first.firstChild, name);
    put(first.lastChild, label);
    others.forEach((cell, column) => {
      const lines = numbers[column];
      while (cell.childElementCount < lines.length) cell.append(document.createElement("span"));
      lines.forEach((line, at) => put(cell.children[at], line));
    });
    if (id !== "policies") remember(name);
  });
  while (rows.length > data.length) $(id).deleteRow(-1);
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function newRow(id) {
  const row = $(id).insertRow();
  const name = document.createElement(id === "policies" ? "b" : "button");
  if (id !== "policies") name.onclick = () => choose(name.textContent);
  row.insertCell().append(name, document.createElement("span"));
  while (row.cells.length < $(id).closest("table").rows[0].cells.length) row.insertCell();
  return row;
}

function remember(client) {
  if (![...$("clients").options].some((option) => option.value === client)) $("clients").append(new Option(client));
}

function choose(client) {
  remember(client);
  $("client").value = client;
  poll();
}
$("client").addEventListener("change", poll);

// --- the form

const BODIES = {
  "/login": { username: "demo", password: "guess" },
  "/completions": { prompt: "Once upon a time there was", max_tokens: 94 },
};

// Scripts may send only Latin-1 in headers, so each byte of the UTF-8 becomes a character.
const header = (text) => String.fromCharCode(...new TextEncoder().encode(text));

$("fire").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const [method, path] = form.route.value.split(" ");
  const headers = { "X-API-Key": header(form.key.value), "Content-Type": "application/json" };
  const request = () => fetch(path, { method, headers, body: JSON.stringify(BODIES[path]), cache: "no-store" });
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const responses = await Promise.all(Array.from({ length: form.count.valueAsNumber }, request));
    const counts = Map.groupBy(responses, (response) => response.status);
    const texts = [...counts].sort().map(([code, all]) => `${all.length} × ${code} ${all[0].statusText}`);
    $("outcome").textContent = texts.join(", ");
    const last = responses.at(-1).headers;
    const names = ["RateLimit-Policy", "RateLimit", "Retry-After"].filter((name) => last.has(name));
    $("headers").hidden = !names.length;
    $("headers").textContent = names.map((name) => `${name}: ${last.get(name)}`).join("\n");
    const logs = await fetch("monitor/logs", { headers });
    if (logs.ok) choose((await logs.json())[path]);
  } catch (error) {
    $("outcome").textContent = `No answer: ${error.message}`;
  } finally {
    button.disabled = false;
  }
});

poll();
