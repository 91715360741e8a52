// The console shows what the API says, and says nothing itself: it only reads. Whatever
// comes from the API is written as text, never as markup.

const rowsMax = 500; // services listed at once: the search is for the rest
const instancesMax = 200; // of one service shown at once
const eventsMax = 200;
const settle = 150; // ms that changes are gathered for
const statusEvery = 2000; // ms, of what no event tells: ages, loads, checks
const restFactor = 10; // the server is left alone for so many times as long as it took to answer
const changedFor = 2500; // ms that a change is marked

const $ = (id) => document.getElementById(id);

// element makes an element of text or other elements.
function element(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null && value !== false) e.setAttribute(name, value === true ? "" : value);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null).map((c) => (c instanceof Node ? c : String(c))));
  return e;
}

// say sets a text where it is another: what reads the page aloud says it once.
function say(id, text, tone) {
  const e = $(id);
  if (e.textContent !== text) e.textContent = text;
  if (tone !== undefined) e.className = tone;
}

// morph makes an element what another is, and leaves what is the same in its place:
// focus, selection and scrolling stay.
function morph(old, now) {
  if (old.isEqualNode(now)) return;
  if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== now.nodeName) { old.replaceWith(now); return; }
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...now.childNodes];
  after.forEach((n, i) => (before[i] ? morph(before[i], n) : old.append(n)));
  before.slice(after.length).forEach((n) => n.remove());
}

// list makes the children of an element those given, each with a key of its own.
function list(parent, fresh) {
  const keys = new Set(fresh.map((e) => e.dataset.key));
  const old = new Map([...parent.children].map((e) => [e.dataset.key, e]));
  for (const [k, e] of old) if (!keys.has(k)) e.remove();
  let next = parent.firstElementChild;
  for (const e of fresh) {
    const here = old.get(e.dataset.key);
    if (here) morph(here, e);
    if (here && here === next) next = next.nextElementSibling;
    else parent.insertBefore(here ?? e, next);
  }
}

async function get(path) {
  const resp = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await resp.json();
  if (!resp.ok) throw new Error(body.error?.message ?? resp.statusText);
  return body;
}

const state = { proxy: false, services: [], chosen: location.hash.slice(1), seen: new Map(), busyUntil: 0, soon: false };

const key = (s) => `${s.zone}/${s.name}`;

// tone is how a service or an instance is marked.
function toneOf(s) {
  if (s.counts.total === 0) return "dim";
  if (s.mode !== "normal" || s.counts.serving === 0) return "bad";
  return s.counts.serving < s.counts.total ? "warn" : "";
}

// first are at most max of a list: of more, those first that are ill.
const first = (all, max, ill) => all.length <= max ? all : [...all.filter(ill), ...all.filter((x) => !ill(x))].slice(0, max);

function showServices() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = state.services.filter((s) => words.every((w) => s.domain.includes(w) || s.mode.includes(w)));
  if (!found.some((s) => key(s) === state.chosen) && found.length > 0) state.chosen = key(found[0]);
  list($("services"), first(found, rowsMax, (s) => ["bad", "warn"].includes(toneOf(s))).map((s) => element("li", { "data-key": key(s) },
    element("button", { type: "button", "data-service": key(s), "aria-current": key(s) === state.chosen ? "true" : undefined, "aria-label": `${s.name} ${s.counts.serving}/${s.counts.total} instances answered` },
      element("span", {}, s.name), element("span", { class: `count ${toneOf(s)}` }, `${s.counts.serving}/${s.counts.total}`)))));
  $("more").hidden = found.length <= rowsMax;
  say("more", `and ${found.length - rowsMax} more: search for them; those with instances that are not answered come first here`);
}

function choose(k) {
  state.chosen = k;
  history.replaceState(null, "", `#${k}`);
  showServices();
  Promise.all([showService(), showProxy()]).catch(failed);
}

const percent = (x) => (x === undefined ? "" : `${(100 * x).toFixed(1)} %`);

const columns = [["Instance"], ["Address"], ["Answered"], ["Health"], ["Weight", "number"], ["Share", "number"], ["Place", "place"], ["Why, and what the checks say", "why"]];

// heading is the row of a table's columns, which have names and classes, and cells those
// of another of its rows. Roles are said, since what is no table to the eye (a narrow
// window's) is none to some readers.
const heading = (of) => element("tr", { role: "row" }, ...of.map(([name, kind]) => element("th", { scope: "col", role: "columnheader", class: kind }, name)));
const cells = (of, ...contents) => contents.map((c, n) => element("td", { role: "cell", class: of[n][1], "data-label": of[n][0] }, c));

function row(i, share) {
  const health = { passing: "good", failing: "bad" }[i.health] ?? "dim";
  const checks = (i.checks ?? []).map((c) => c.output).filter((text) => text && !i.why.includes(text)).join("; ");
  const admin = typeof i.admin === "string" ? i.admin : i.admin?.state;
  const now = `${i.serving} ${i.health} ${admin}`;
  const before = state.seen.get(i.id);
  const until = before && before.now !== now ? Date.now() + changedFor : before?.until ?? 0;
  state.seen.set(i.id, { now, until });
  return element("tr", { role: "row", "data-key": i.id, "data-instance": i.id, class: Date.now() < until ? "changed" : undefined }, ...cells(columns,
    i.id,
    element("code", {}, i.addresses.join(" ") + (i.port ? `:${i.port}` : "")),
    element("span", { class: `state ${i.serving ? "good" : "bad"}` }, i.serving ? "in" : "out"),
    element("span", { class: `state ${health}` }, admin ? `${i.health}, ${admin}` : i.health),
    i.effective_weight === i.weight ? i.weight : `${i.effective_weight} of ${i.weight}`,
    percent(share),
    [i.region, i.locality].filter(Boolean).join(" "),
    [i.why, checks].filter(Boolean).join(" \u00b7 ")));
}

// showRows shows the instances, of very many those first that are not answered.
function showRows(instances, shares) {
  const left = instances.length - instancesMax;
  list($("instances"), first(instances, instancesMax, (i) => !i.serving).map((i) => row(i, shares.get(i.id))));
  $("rest").hidden = left <= 0;
  say("rest", `and ${left} more: muster instances lists them; those that are not answered come first here`);
}

async function showService() {
  const chosen = state.services.find((s) => key(s) === state.chosen);
  if (!chosen) {
    say("name", state.services.length > 0 ? "No service has this name" : "No service is registered yet");
    say("policy", "muster register web --port 8080 --check http:/healthz registers one.");
    say("failure", "");
    $("columns").replaceChildren();
    showRows([], new Map());
    return;
  }
  const [s, explained] = await Promise.all([
    get(`/v1/services/${encodeURIComponent(chosen.name)}?zone=${encodeURIComponent(chosen.zone)}`),
    get(`/v1/explain?name=${encodeURIComponent(chosen.domain)}`).catch(() => ({})),
  ]);
  const shares = new Map((explained.instances ?? []).map((v) => [v.id, v.share]));
  if (key(s) !== state.chosen) return; // another was chosen meanwhile
  if (state.shown !== state.chosen) state.seen.clear(); // nothing of another service has changed
  state.shown = state.chosen;
  say("name", s.domain);
  say("policy", [`policy ${s.policy}`, `mode ${s.mode}${s.frozen ? ", frozen" : ""}`, `TTL ${s.ttl}`, ...(s.checks ?? [])].join(" \u00b7 "));
  const told = (title, f) => f ? `${title}: ${f.instance} at ${new Date(f.at).toLocaleString()}, ${f.what}. ` : "";
  const [last, worst] = [told("Last failure", s.last_failure), told("The longest one", s.worst_failure)];
  say("failure", s.worst_failure?.what === s.last_failure?.what ? last : last + worst);
  if (!$("columns").firstChild) $("columns").append(heading(columns));
  showRows(s.instances ?? [], shares);
}

const proxyColumns = [["Instance"], ["Chosen"], ["In flight", "number"], ["Requests", "number"], ["Failures", "number"], ["Ejections", "number"], ["Share", "number"], ["Why", "why"]];

// showProxy shows how the proxies see the chosen service.
async function showProxy() {
  const p = state.proxy ? await get("/v1/proxy") : {};
  const mine = (p.services ?? []).filter((s) => `${s.zone}/${s.service}` === state.chosen);
  list($("proxies"), mine.map((s) => element("div", { class: "wide", "data-key": s.part ?? "" }, element("table", { role: "table" },
    element("caption", {}, `Proxy${s.part ? `, ${s.part}` : ""}: ${s.policy}, ${s.active} in flight`),
    element("thead", { role: "rowgroup" }, heading(proxyColumns)),
    element("tbody", { role: "rowgroup" }, ...(s.instances ?? []).slice(0, instancesMax).map((i) => element("tr", { role: "row", "data-proxied": i.id }, ...cells(proxyColumns,
      i.id,
      element("span", { class: `state ${i.ejected ? "warn" : i.in ? "good" : "bad"}` }, i.ejected ? "ejected" : i.in ? "in" : "out"),
      i.active, i.total, i.failures, i.ejections, percent(i.share), i.why))))))));
}

async function showStatus() {
  const st = await get("/v1/status");
  state.proxy = st.proxy;
  const r = st.registry ?? {};
  const facts = [
    ["node", st.node], ["version", st.version], ["DNS", (st.dns ?? []).join(" ")],
    ["registry", r.connected ? `revision ${r.revision}` : `away, what is known is ${r.age} old`],
    ["services", st.services], ["instances", `${st.instances.serving} of ${st.instances.total} answered`], ["queries", st.queries],
  ];
  list($("facts"), facts.filter(([, v]) => v !== undefined && v !== "").map(([k, v]) => element("div", { "data-key": k }, element("dt", {}, k), element("dd", {}, v))));
  const alarms = [];
  if (!st.ready) alarms.push(`not ready: ${(st.waiting ?? []).join(", ")}`);
  if (r.stale) alarms.push(`the registry's state is ${r.age} old`);
  if (st.problems > 0) alarms.push(`${st.problems} records cannot be used: muster doctor names them`);
  say("alarm", alarms.join(" \u00b7 "));
  $("alarm").hidden = alarms.length === 0;
}

// showNews adds an event to the list.
function showNews(e) {
  const what = [e.kind, [e.service, e.instance].filter(Boolean).join("/"), e.from || e.to ? `${e.from ?? ""} \u2192 ${e.to ?? ""}` : "", e.reason].filter(Boolean);
  const tone = e.to === "failing" || e.to === "out" || e.kind === "alarm" ? "bad" : e.to === "passing" || e.to === "in" ? "good" : "";
  $("events").prepend(element("li", {}, element("time", { datetime: e.at }, new Date(e.at).toLocaleTimeString()), ...what.map((w, n) => element("span", { class: n === 2 ? tone : undefined }, w))));
  while ($("events").childElementCount > eventsMax) $("events").lastElementChild.remove();
}

// refresh shows all anew, one refresh at a time: of what changes meanwhile, the next
// tells. The more a server has, the longer it takes, and the longer it is left alone.
let running = false, wanted = false, timer;
async function refresh() {
  if (running) { wanted = true; return; }
  running = true;
  wanted = false;
  const begun = performance.now();
  try {
    state.services = (await get("/v1/services")).services ?? [];
    showServices();
    await showStatus();
    await Promise.all([showService(), showProxy()]);
  } catch (err) {
    failed(err);
  }
  running = false;
  const rest = restFactor * (performance.now() - begun);
  refreshAfter(Math.max(wanted ? settle : statusEvery, rest));
  state.busyUntil = performance.now() + rest;
}

function refreshAfter(ms) {
  clearTimeout(timer);
  timer = setTimeout(() => (document.hidden ? refreshAfter(statusEvery) : refresh()), ms);
}

// refreshSoon is called at each change.
function refreshSoon() {
  if (running) wanted = true;
  else if (!state.soon) {
    state.soon = true;
    setTimeout(() => { state.soon = false; refresh(); }, Math.max(settle, state.busyUntil - performance.now()));
  }
}

function failed(err) {
  say("connection", `no answer: ${err.message}`, "bad");
}

// follow reads the events as they come, and begins again when they end.
async function follow() {
  for (;;) {
    try {
      const resp = await fetch("/v1/events", { headers: { Accept: "text/event-stream" } });
      if (!resp.ok) throw new Error(resp.statusText);
      say("connection", "live", "good");
      refreshSoon();
      const reader = resp.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the server ended");
        const parts = (rest + value).split("\n\n");
        rest = parts.pop();
        for (const part of parts) {
          const data = part.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5)).join("\n");
          if (!data) continue;
          showNews(JSON.parse(data));
          refreshSoon();
        }
      }
    } catch (err) {
      failed(err);
      await new Promise((wake) => setTimeout(wake, 1000));
    }
  }
}

$("search").addEventListener("input", () => { showServices(); showService().catch(failed); });
$("services").addEventListener("click", (e) => { const b = e.target.closest("button"); if (b) choose(b.dataset.service); });
refresh();
follow();
