// The page's script with a front door that fails as told: each scene is a list of answers, and what the page shows
// in the end. Time passes at once.
import { readFileSync } from "node:fs";
import vm from "node:vm";
import assert from "node:assert/strict";

const text = readFileSync(process.argv[2], "utf8");
const script = text.slice(text.indexOf("<script>") + 8, text.indexOf("</script>"));
const ID = "01a1ff00-0000-7000-8000-0000000000ab";

class Element {
  constructor() {
    Object.assign(this, { textContent: "", className: "", hidden: false, value: "", children: [], dataset: {}, isElement: true });
    this.classList = { add() {}, remove() {} };
  }
  append(...made) { this.children.push(...made); }
  replaceChildren(...made) { this.children = made; }
  replaceWith() {}
  remove() { this.removed = true; }
  get firstChild() { return this.children[0] ??= new Element(); }
  get lastChild() { return this.children.at(-1); }
  get lastElementChild() { return this.lastChild; }
  addEventListener() {} setAttribute() {} scrollIntoView() {} querySelector() { return null; } insertBefore() {} focus() {}
}

const stream = (...events) => () => new Response(
  events.map(([event, data], n) => `event: ${event}\nid: ${event}${n}\ndata: ${JSON.stringify(data)}\n\n`).join(""),
  { headers: { "content-type": "text/event-stream" } });
const json = (body, status = 200) => () => new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
const away = () => { throw new TypeError("fetch failed"); };
const unavailable = json({ title: "Unavailable", detail: "not now", remedy: "Wait." }, 503);
const end = stream(["end", { status: "success", attempts: 1 }]);

async function follows({ events, results, shown, warned = "", clicks = 0 }) {
  const page = new Map();
  const $ = id => page.get(id) ?? page.set(id, new Element()).get(id);
  const turns = [];
  const scene = {
    document: { getElementById: $, createElement: () => new Element(), createElementNS: () => new Element(), addEventListener() {}, hidden: true },
    location: { hash: "#" + ID }, sessionStorage: { getItem: () => "", setItem() {} }, addEventListener() {},
    // Only short pauses come to an end: what is waited for longer is never late here.
    setTimeout: (wake, ms) => ms < 20000 && turns.push(wake),
    fetch: async path => {
      const answers = path.endsWith("/events") ? events : path.endsWith("/result") ? results : [];
      assert.ok(answers.length, `nothing more is expected to be asked of ${path}`);
      return answers.length > 1 ? answers.shift()() : answers[0]();
    },
    Intl, Response, AbortController, AbortSignal, TextDecoderStream, Promise, encodeURIComponent, decodeURIComponent, JSON, Date, Error, console,
  };
  vm.runInNewContext(script, scene);
  const rest = async () => {
    for (let quiet = 0; quiet < 5; quiet++) {
      await new Promise(wake => setTimeout(wake, 5));
      // The overview asks again for ever, while nobody looks.
      for (const wake of turns.splice(0)) { wake(); }
    }
  };
  for (let n = 0; n < 12; n++) await rest();
  for (; clicks; clicks--) {
    $("result").children[0].onclick();
    for (let n = 0; n < 12; n++) await rest();
  }
  assert.equal($("result").children[0]?.textContent, shown);
  assert.equal($("trouble").textContent, warned);
}

const running = stream(["status", { status: "processing", attempts: 1 }]);
await follows({ events: [end], results: [json(7)], shown: "7" });
// The result is away for a moment, while the end is told no more.
await follows({ events: [end, () => new Response(null, { status: 204 })], results: [away, unavailable, json(7)], shown: "7" });
await follows({ events: [running, () => new Response(null, { status: 204 })], results: [json(7)], shown: "7" });
await follows({ events: [end], results: [json({ status: "accepted" }, 202), json(7)], shown: "7" });
// A warning goes with what it warned of.
await follows({ events: [away, unavailable, running, stream(["error", { status: 503, detail: "not now" }], ["status", { status: "processing", attempts: 1 }]), end],
  results: [json(7)], shown: "7" });
// A refusal is final, and a long absence leaves a way on.
await follows({ events: [end], results: [json({ detail: "it failed" }, 422)], shown: "it failed" });
await follows({ events: [end], results: [away], shown: "Fetch the result", warned: "Its result could not be fetched." });
await follows({ events: [end], results: [away, away, away, away, away, json(7)], clicks: 1, shown: "7" });
