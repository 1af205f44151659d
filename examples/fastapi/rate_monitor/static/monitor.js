// Draws what /monitor/events sends once a second. The chart library is uPlot, kept beside this file.

const SECONDS = 60;
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);

let first; // the first event of this page
let latest; // the newest
const rates = new Map(); // by second of the server's clock: what was admitted and refused

// --- events

let source;
function listen() {
  source?.close();
  source = new EventSource(`monitor/events?client=${encodeURIComponent($("client").value)}`);
  source.onmessage = ({ data }) => show(JSON.parse(data));
  source.onerror = () => status("the application does not answer", true);
}

function status(text, away = false) {
  $("status").textContent = text;
  $("status").classList.toggle("away", away);
}

function show(event) {
  if (event.error) return status(event.error, true);
  status("live");
  // Counters restart with the server.
  if (!first || event.admitted < latest.admitted || event.refused < latest.refused) {
    rates.clear();
    first = latest = event;
  }
  const second = Math.floor(event.now / 1000);
  const rate = rates.get(second) ?? { admitted: 0, refused: 0 };
  rate.admitted += event.admitted - latest.admitted;
  rate.refused += event.refused - latest.refused;
  rates.set(second, rate);
  for (const old of rates.keys()) if (old <= second - SECONDS) rates.delete(old);
  latest = event;
  $("admitted").textContent = number.format(event.admitted - first.admitted);
  $("refused").textContent = number.format(event.refused - first.refused);
  showRate(event);
  showTop(event);
  showWindow(event);
}

// --- charts

const charts = {};
// A chart has fixed colours, so a change of the colour scheme makes a new one.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const name of Object.keys(charts)) {
    charts[name].destroy();
    delete charts[name];
  }
  if (latest) showRate(latest), showWindow(latest);
});
const resized = new ResizeObserver(() => {
  for (const chart of Object.values(charts)) chart.setSize(size(chart.root.parentElement));
});
for (const element of document.querySelectorAll(".chart")) resized.observe(element);
const size = (element) => ({ width: element.clientWidth, height: element.clientHeight });

function axes() {
  const common = { stroke: color("faint"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false } };
  const ago = (_, splits) => splits.map((x) => (x === 0 ? "now" : `${number.format(x)} s`));
  return [
    { ...common, values: ago, size: 28, grid: { show: false } },
    { ...common, size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] },
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

function draw(name, element, options, data) {
  charts[name] ??= new uPlot(
    { ...size(element), axes: axes(), legend: { show: false }, padding: [12, 18, 0, 0], ...options() },
    data,
    element,
  );
  charts[name].setData(data);
}

// A bar for each second: how much the counters grew in it.
function showRate({ now }) {
  const x = Array.from({ length: SECONDS }, (_, i) => i - SECONDS + 1);
  const seconds = x.map((ago) => rates.get(Math.floor(now / 1000) + ago));
  const admitted = seconds.map((rate) => rate?.admitted || null);
  const both = seconds.map((rate) => rate && (rate.admitted + rate.refused || null));
  $("admitted-rate").textContent = number.format(rates.get(Math.floor(now / 1000)).admitted);
  $("refused-rate").textContent = number.format(rates.get(Math.floor(now / 1000)).refused);
  const bars = uPlot.paths.bars({ size: [0.75, 24], align: -1 });
  const options = () => ({
    scales: {
      x: { time: false, range: [-SECONDS, 0] },
      y: { range: (_, __, most) => [0, Math.max(5, most * 1.1)] },
    },
    cursor: { show: false },
    // The admitted part is drawn over the sum, so the visible rest is what was refused.
    series: [
      {},
      { paths: bars, stroke: color("refused"), fill: stripes(), width: 1, points: { show: false } },
      { paths: bars, stroke: color("admitted"), fill: color("admitted"), width: 1, points: { show: false } },
    ],
  });
  draw("rate", $("rate-chart"), options, [x, both, admitted]);
}

// Every hit that counts is a step up. It leaves the window, and the picture, on the left.
function showWindow({ now, window }) {
  $("window-chart").hidden = !window;
  if (!window) {
    if ($("client").value) $("usage").textContent = "No limit of this application has that name.";
    return;
  }
  const span = window.milliseconds / 1000;
  const x = [-span], used = [0];
  for (const [time, cost] of window.hits) {
    x.push((time - now) / 1000);
    used.push(used.at(-1) + cost);
  }
  x.push(0);
  used.push(used.at(-1));
  const units = (n) => `${number.format(n)} ${n === 1 ? "unit" : "units"}`;
  $("usage").textContent =
    `${number.format(used.at(-1))} of ${units(window.limit)} in the last ${span} s.` +
    (window.hits.length ? ` The oldest hit leaves in ${(window.next_after / 1000).toFixed(1)} s.` : "");

  const name = `window ${window.limit} ${span}`;
  for (const other of Object.keys(charts)) {
    if (other.startsWith("window") && other !== name) charts[other].destroy(), delete charts[other];
  }
  const options = () => ({
    scales: {
      x: { time: false, range: [-span, 0] },
      y: { range: (_, __, most) => [0, Math.max(window.limit, most) * 1.15] },
    },
    cursor: { show: false },
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
  draw(name, $("window-chart"), options, [x, used, x.map(() => window.limit)]);
}

// --- refused most

// Keep the rows and change only their text, so that no button is replaced while somebody clicks it.
function showTop({ now, top }) {
  const rows = $("top").rows;
  top.forEach(([client, refused, last], i) => {
    const [name, count, when] = (rows[i] ?? newRow()).cells;
    name.firstChild.textContent = name.title = client;
    count.textContent = number.format(refused);
    when.textContent = `${Math.max(0, Math.round((now - last) / 1000))} s ago`;
    remember(client);
  });
  while (rows.length > top.length) $("top").deleteRow(-1);
}

function newRow() {
  const row = $("top").insertRow();
  const button = document.createElement("button");
  button.onclick = () => choose(button.textContent);
  row.insertCell().append(button);
  row.insertCell();
  row.insertCell();
  return row;
}

function remember(client) {
  if (![...$("clients").options].some((option) => option.value === client)) $("clients").append(new Option(client));
}

function choose(client) {
  remember(client);
  if ($("client").value === client) return;
  $("client").value = client;
  listen();
}
$("client").addEventListener("change", listen);

// --- the form

const BODIES = {
  "/login": { username: "demo", password: "guess" },
  "/completions": { prompt: "Once upon a time there was", max_tokens: 94 },
};

$("fire").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const [method, path] = form.route.value.split(" ");
  const headers = { "X-API-Key": form.key.value, "Content-Type": "application/json" };
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
    // The answer names the log that counted it: the policy and the partition key.
    const log = /^"([^"]+)".*?;pk=:([^:]*):/.exec(last.get("RateLimit"));
    if (log) choose(`${log[1]}:${new TextDecoder().decode(Uint8Array.from(atob(log[2]), (c) => c.charCodeAt()))}`);
  } catch (error) {
    $("outcome").textContent = `No answer: ${error.message}`;
  } finally {
    button.disabled = false;
  }
});

listen();
