// Asks for the state of this replica every second and draws it. A refusal's row opens its explanation; so does its decision's id
// after a `#` in the address. Texts are set as text, never as markup. It asks, and changes nothing.
"use strict";

const PERIOD = 1000;
const KEPT = 120;
const VERDICTS = ["allow", "deny", "step-up"];
const history = [];
let before = null;

const find = (selector, below = document) => below.querySelector(selector);

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

const show = (value) => {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 2 });
  return typeof value === "object" ? JSON.stringify(value) : String(value);
};

const words = (code) => code.replaceAll("_", " ");

const span = (seconds) => {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${seconds} s`;
};

const seconds = (time) => new Date(time).toLocaleTimeString("en-GB");

const rows = (table, pairs) => {
  table.replaceChildren();
  for (const [name, value] of pairs) {
    const row = table.insertRow();
    row.append(element("td", words(name)), element("td", show(value)));
  }
};

const bars = (box, pairs) => {
  const most = Math.max(1, ...pairs.map(([, count]) => count));
  box.replaceChildren();
  for (const [name, count] of pairs) {
    const bar = element("progress");
    bar.max = most;
    bar.value = count;
    box.append(element("span", name, "name"), bar, element("span", show(count), "count"));
  }
  if (pairs.length === 0) box.append(element("span", "none", "none"));
};

const measure = (totals) => {
  const now = performance.now();
  if (before) {
    const span = (now - before.now) / 1000;
    // A replica that was started again counts from nothing.
    history.push(VERDICTS.map((verdict) => Math.max(0, (totals[verdict] - before.totals[verdict]) / span)));
    if (history.length > KEPT) history.shift();
  }
  before = { totals, now };
};

const drawVerdicts = (totals) => {
  measure(totals);
  const most = Math.max(1, ...history.flat());
  const svg = find("#verdicts svg");
  svg.replaceChildren();
  VERDICTS.forEach((verdict, index) => {
    const box = find(`#verdicts .${verdict}`);
    const last = history.at(-1);
    find("dd", box).textContent = last ? show(last[index] < 10 ? Math.round(10 * last[index]) / 10 : Math.round(last[index])) : "–";
    find(".total", box).textContent = `${show(totals[verdict])} in all`;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const first = KEPT - history.length;
    line.setAttribute("class", verdict);
    line.setAttribute("points", history.map((rates, at) => `${first + at},${98 - (94 * rates[index]) / most}`).join(" "));
    svg.append(line);
  });
};

const drawRefusals = (refusals) => {
  const body = find("#refusals tbody");
  find("#refusals .none").hidden = refusals.length > 0;
  find("#refusals .scroll").hidden = refusals.length === 0;
  // Unchanged: what somebody is about to click stays where it is.
  if (body.dataset.newest === (refusals[0] ? refusals[0].id : "")) return;
  body.dataset.newest = refusals[0] ? refusals[0].id : "";
  body.replaceChildren();
  for (const refusal of refusals) {
    const row = body.insertRow();
    row.dataset.id = refusal.id;
    const open = element("button", refusal.id.slice(0, 12));
    open.title = "Explain";
    const last = element("td");
    last.append(open);
    row.append(
      element("td", seconds(refusal.time)),
      element("td", words(refusal.verdict), refusal.verdict),
      element("td", show(refusal.reason)),
      element("td", refusal.request),
      element("td", show(refusal.resource)),
      last,
    );
    row.addEventListener("click", () => explain(refusal.id));
  }
};

const draw = (state) => {
  const ready = find("#ready");
  const missing = state.readiness.map((what) => what.why);
  ready.textContent = missing.length ? `not ready: ${missing.join("; ")}` : "ready";
  ready.className = missing.length ? "pill bad" : "pill good";
  find("#instance").textContent = `version ${state.instance.version}, up ${span(state.instance.up)}`;
  find("#clock").textContent = new Date().toLocaleTimeString("en-GB");
  drawVerdicts(state.decisions);
  bars(find("#reasons .bars"), state.reasons.map(({ reason, count }) => [reason, count]));
  bars(find("#sessions .bars"), state.sessions.map(({ level, count }) => [level, count]));
  rows(find("#feed table"), Object.entries(state.feed));
  rows(find("#rules table"), Object.entries(state.rules));
  drawRefusals(state.refusals);
};

const part = (title, heads, lines) => {
  if (lines.length === 0) return;
  const table = element("table");
  const head = table.createTHead().insertRow();
  heads.forEach((name) => head.append(element("th", name)));
  const body = table.createTBody();
  for (const line of lines) {
    const row = body.insertRow();
    line.forEach((value) => row.append(element("td", show(value))));
  }
  find("#explanation .parts").append(element("h3", title), table);
};

const score = (scored, decimals) => `${scored.score.toFixed(decimals)} (${scored.level})`;

const explain = async (id) => {
  const dialog = find("#explanation");
  const facts = find(".facts", dialog);
  facts.replaceChildren();
  find(".parts", dialog).replaceChildren();
  find(".what", dialog).textContent = id;
  find(".remedy", dialog).textContent = "";
  find("#why").textContent = "asking…";
  if (!dialog.open) dialog.showModal();
  dialog.dataset.id = id;
  window.history.replaceState(null, "", `#${id}`);
  try {
    const answer = await fetch(`/status/explain/${encodeURIComponent(id)}`);
    if (answer.status === 404) throw new Error("No longer remembered here: the audit record has it.");
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const { why, remedies, explanation } = await answer.json();
    if (dialog.dataset.id !== id) return; // Another one was asked for meanwhile.
    find("#why").textContent = why;
    find(".what", dialog).textContent = `${explanation.request} · ${explanation.time}`;
    find(".remedy", dialog).textContent = remedies.length ? `What would help: ${remedies.join(", or ")}.` : "";
    const named = [
      ["verdict", `${words(explanation.verdict)}, ${explanation.status}`], ["reason", explanation.reason], ["who", explanation.subject],
      ["resource", explanation.resource], ["policy", explanation.policy], ["rule", explanation.rule],
      ["risk", score(explanation.risk, 1)], ["trust", score(explanation.trust, 2)], ["rules", explanation.rules], ["decision", explanation.id],
    ];
    for (const [name, value] of named) if (value) facts.append(element("dt", name), element("dd", value));
    part("What spoke against it", ["Reason", "Rule", "Detail"], explanation.findings.map((found) => [found.reason, found.rule, found.detail]));
    part("What was known", ["Fact", "State", "Value"], explanation.factor_values.map(([name, value]) => [name, words(explanation.factors[name].state), value]));
    for (const [title, scored] of [["Risk", explanation.risk], ["Trust", explanation.trust]]) {
      part(title, ["Signal", "Points", "Evidence"], scored.lines.map((line) => [words(line.name), line.points, line.evidence]));
    }
  } catch (error) {
    if (dialog.dataset.id === id) find("#why").textContent = error.message;
  }
};

// Told some time after the closing: the address may lead to another decision by then.
const closed = () => {
  if (window.location.hash.slice(1) === find("#explanation").dataset.id) window.history.replaceState(null, "", "#");
};

const fromAddress = () => {
  const id = window.location.hash.slice(1);
  if (/^[0-9a-f]{32}$/.test(id)) explain(id);
};

const ask = async () => {
  try {
    const answer = await fetch("/status.json");
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    draw(await answer.json());
  } catch (error) {
    find("#ready").textContent = `no answer: ${error.message}`;
    find("#ready").className = "pill bad";
  }
  setTimeout(ask, PERIOD);
};

find("#explanation").addEventListener("close", closed);
window.addEventListener("hashchange", fromAddress);
ask();
fromAddress();
