// The console shows what the API says, and says nothing itself: it only reads. Whatever
// comes from the API is written as text, never as markup.

const rowsMax = 500; // services listed at once: the search is for the rest
const eventsMax = 200;
const settle = 150; // ms that changes are gathered for
const statusEvery = 2000; // ms, of what no event tells: ages, loads, checks

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

async function get(path) {
  const resp = await fetch(path, { headers: { Accept: "application/json" } });
  const body = await resp.json();
  if (!resp.ok) throw new Error(body.error?.message ?? resp.statusText);
  return body;
}

const state = { proxy: false, services: [], chosen: location.hash.slice(1), seen: new Map() };

const key = (s) => `${s.zone}/${s.name}`;

// tone is how a service or an instance is marked.
function toneOf(s) {
  if (s.counts.total === 0) return "dim";
  if (s.mode !== "normal" || s.counts.serving === 0) return "bad";
  return s.counts.serving < s.counts.total ? "warn" : "";
}

function showServices() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = state.services.filter((s) => words.every((w) => s.domain.includes(w) || s.mode.includes(w)));
  if (!found.some((s) => key(s) === state.chosen) && found.length > 0) state.chosen = key(found[0]);
  const focused = document.activeElement?.dataset?.service;
  $("services").replaceChildren(...found.slice(0, rowsMax).map((s) => {
    const button = element("button", { type: "button", "data-service": key(s), "aria-current": key(s) === state.chosen ? "true" : undefined },
      element("span", {}, s.name), element("span", { class: `count ${toneOf(s)}` }, `${s.counts.serving}/${s.counts.total}`));
    button.addEventListener("click", () => choose(key(s)));
    return element("li", {}, button);
  }));
  if (focused) $("services").querySelector(`[data-service="${CSS.escape(focused)}"]`)?.focus();
  $("more").hidden = found.length <= rowsMax;
  $("more").textContent = `and ${found.length - rowsMax} more: search for them`;
}

function choose(k) {
  state.chosen = k;
  state.seen.clear();
  history.replaceState(null, "", `#${k}`);
  showServices();
  Promise.all([showService(), showProxy()]).catch(failed);
}

const percent = (x) => (x === undefined ? "" : `${(100 * x).toFixed(1)} %`);

const columns = [["Instance"], ["Address"], ["Answered"], ["Health"], ["Weight", "number"], ["Share", "number"], ["Place"], ["Why, and what the checks say"]];

function row(i, share) {
  const health = { passing: "good", failing: "bad" }[i.health] ?? "dim";
  const checks = (i.checks ?? []).map((c) => c.output).filter(Boolean).join("; ");
  const place = [i.region, i.locality].filter(Boolean).join(" ");
  const admin = typeof i.admin === "string" ? i.admin : i.admin?.state;
  const cells = [
    element("td", {}, i.id),
    element("td", {}, element("code", {}, i.addresses.join(" ") + (i.port ? `:${i.port}` : ""))),
    element("td", {}, element("span", { class: `state ${i.serving ? "good" : "bad"}` }, i.serving ? "in" : "out")),
    element("td", {}, element("span", { class: `state ${health}` }, admin ? `${i.health}, ${admin}` : i.health)),
    element("td", { class: "number" }, i.effective_weight === i.weight ? i.weight : `${i.effective_weight} of ${i.weight}`),
    element("td", { class: "number" }, percent(share)),
    element("td", { class: "place" }, place),
    element("td", { class: "why" }, [i.why, checks].filter(Boolean).join(" \u00b7 ")),
  ];
  const now = `${i.serving} ${i.health} ${admin}`;
  const before = state.seen.get(i.id);
  state.seen.set(i.id, now);
  return element("tr", { "data-instance": i.id, class: before !== undefined && before !== now ? "changed" : undefined }, ...cells);
}

async function showService() {
  const chosen = state.services.find((s) => key(s) === state.chosen);
  if (!chosen) {
    $("name").textContent = "No service is registered yet";
    $("policy").textContent = "muster register web --port 8080 --check http:/healthz registers one.";
    $("failure").textContent = "";
    $("columns").replaceChildren();
    $("instances").replaceChildren();
    return;
  }
  const [s, explained] = await Promise.all([
    get(`/v1/services/${encodeURIComponent(chosen.name)}?zone=${encodeURIComponent(chosen.zone)}`),
    get(`/v1/explain?name=${encodeURIComponent(chosen.domain)}`).catch(() => ({})),
  ]);
  const shares = new Map((explained.instances ?? []).map((v) => [v.id, v.share]));
  if (key(s) !== state.chosen) return; // another was chosen meanwhile
  $("name").textContent = s.domain;
  $("policy").textContent = [`policy ${s.policy}`, `mode ${s.mode}${s.frozen ? ", frozen" : ""}`, `TTL ${s.ttl}`, ...(s.checks ?? [])].join(" \u00b7 ");
  const told = (title, f) => f ? `${title}: ${f.instance} at ${new Date(f.at).toLocaleString()}, ${f.what}. ` : "";
  const [last, worst] = [told("Last failure", s.last_failure), told("The longest one", s.worst_failure)];
  $("failure").textContent = s.worst_failure?.what === s.last_failure?.what ? last : last + worst;
  $("columns").replaceChildren(element("tr", {}, ...columns.map(([name, kind]) => element("th", { scope: "col", class: kind }, name))));
  $("instances").replaceChildren(...(s.instances ?? []).map((i) => row(i, shares.get(i.id))));
}

// showProxy shows how the proxies see the chosen service.
async function showProxy() {
  const p = state.proxy ? await get("/v1/proxy") : {};
  const mine = (p.services ?? []).filter((s) => `${s.zone}/${s.service}` === state.chosen);
  $("proxies").replaceChildren(...mine.map((s) => element("div", { class: "wide" }, element("table", {},
    element("caption", {}, `Proxy${s.part ? `, ${s.part}` : ""}: ${s.policy}, ${s.active} in flight`),
    element("thead", {}, element("tr", {}, ...[["Instance"], ["Chosen"], ["In flight", "number"], ["Requests", "number"], ["Failures", "number"], ["Ejections", "number"], ["Share", "number"], ["Why"]]
      .map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
    element("tbody", {}, ...(s.instances ?? []).map((i) => element("tr", { "data-proxied": i.id },
      element("td", {}, i.id),
      element("td", {}, element("span", { class: `state ${i.ejected ? "warn" : i.in ? "good" : "bad"}` }, i.ejected ? "ejected" : i.in ? "in" : "out")),
      element("td", { class: "number" }, i.active), element("td", { class: "number" }, i.total), element("td", { class: "number" }, i.failures), element("td", { class: "number" }, i.ejections),
      element("td", { class: "number" }, percent(i.share)), element("td", { class: "why" }, i.why))))))));
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
  $("facts").replaceChildren(...facts.filter(([, v]) => v !== undefined && v !== "").map(([k, v]) => element("div", {}, element("dt", {}, k), element("dd", {}, v))));
  const alarms = [];
  if (!st.ready) alarms.push(`not ready: ${(st.waiting ?? []).join(", ")}`);
  if (r.stale) alarms.push(`the registry's state is ${r.age} old`);
  if (st.problems > 0) alarms.push(`${st.problems} records cannot be used: muster doctor names them`);
  $("alarm").textContent = alarms.join(" \u00b7 ");
  $("alarm").hidden = alarms.length === 0;
}

// showNews adds an event to the list.
function showNews(e) {
  const what = [e.kind, [e.service, e.instance].filter(Boolean).join("/"), e.from || e.to ? `${e.from ?? ""} \u2192 ${e.to ?? ""}` : "", e.reason].filter(Boolean);
  const tone = e.to === "failing" || e.to === "out" || e.kind === "alarm" ? "bad" : e.to === "passing" || e.to === "in" ? "good" : "";
  $("events").prepend(element("li", {}, element("time", { datetime: e.at }, new Date(e.at).toLocaleTimeString()), ...what.map((w, n) => element("span", { class: n === 2 ? tone : undefined }, w))));
  while ($("events").childElementCount > eventsMax) $("events").lastElementChild.remove();
}

let timer;
function refreshSoon() {
  timer ??= setTimeout(() => { timer = undefined; refresh().catch(failed); }, settle);
}

async function refresh() {
  state.services = (await get("/v1/services")).services ?? [];
  showServices();
  await showStatus();
  await Promise.all([showService(), showProxy()]);
}

function failed(err) {
  $("connection").textContent = `no answer: ${err.message}`;
  $("connection").className = "bad";
}

// follow reads the events as they come, and begins again when they end.
async function follow() {
  for (;;) {
    try {
      const resp = await fetch("/v1/events", { headers: { Accept: "text/event-stream" } });
      if (!resp.ok) throw new Error(resp.statusText);
      $("connection").textContent = "live";
      $("connection").className = "good";
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
setInterval(() => { if (!document.hidden) Promise.all([showStatus(), showService(), showProxy()]).catch(failed); }, statusEvery);
refresh().catch(failed);
follow();
