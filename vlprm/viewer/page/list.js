// The list of problems and its filters. All facts are in memory (a few hundred bytes a problem); only one page of rows
// is in the document.

const ROWS = 50;
const ANY = "any";

const byId = (name) => document.getElementById(name);
const filters = Object.fromEntries(
  ["words", "benchmark", "type", "method", "outcome", "method2", "outcome2", "kind", "differ"].map((n) => [n, byId(n)]));

const list = { facts: [], found: [], page: 0, current: null };

function addFacts(facts) {
  list.facts = list.facts.concat(facts);
  offer(filters.benchmark, new Set(list.facts.map((fact) => fact.benchmark)));
  offer(filters.type, new Set(list.facts.map((fact) => fact.type)));
  offer(filters.kind, new Set(list.facts.flatMap((fact) => fact.kinds)));
  const methods = new Set(list.facts.flatMap((fact) => Object.keys(fact.outcomes)));
  offer(filters.method, methods);
  offer(filters.method2, methods);
  find();
  showPage();
}

function offer(select, values) {
  for (const value of [ANY, ...[...values].sort()]) {
    if (![...select.options].some((option) => option.value === value)) {
      select.append(element("option", { value }, value.replaceAll("_", " ")));
    }
  }
}

function filter() {
  list.page = 0;
  find();
  showPage();
}

function find() {
  const words = filters.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const is = (select, value) => select.value === ANY || select.value === value;
  list.found = list.facts.map((_, at) => at).filter((at) => {
    const fact = list.facts[at];
    return is(filters.benchmark, fact.benchmark) && is(filters.type, fact.type)
      && (filters.kind.value === ANY || fact.kinds.includes(filters.kind.value))
      && (!filters.differ.checked || fact.differ)
      && cameOut(fact, filters.method.value, filters.outcome.value)
      && cameOut(fact, filters.method2.value, filters.outcome2.value)
      && words.every((word) => `${fact.question} ${fact.id}`.toLowerCase().includes(word));
  });
}

// Whether a method has this outcome; with any method, whether some method has.
function cameOut(fact, method, wanted) {
  if (wanted === "") {
    return method === ANY || method in fact.outcomes;
  }
  const outcomes = method === ANY ? Object.values(fact.outcomes) : method in fact.outcomes ? [fact.outcomes[method]] : [];
  return outcomes.some((right) => String(right) === wanted);
}

function showPage() {
  const pages = Math.max(1, Math.ceil(list.found.length / ROWS));
  const shownRows = list.found.slice(list.page * ROWS, (list.page + 1) * ROWS);
  byId("list").replaceChildren(...shownRows.map(rowElement));
  byId("list").scrollTop = 0;
  byId("page").textContent = `page ${list.page + 1} of ${pages}`;
  byId("before").disabled = list.page === 0;
  byId("after").disabled = list.page >= pages - 1;
  const total = Number(byId("problems").dataset.total);
  const loaded = list.facts.length < total ? `, ${list.facts.length} of the run's ${total} are here` : "";
  byId("count").textContent = `${list.found.length} of ${list.facts.length} problems${loaded}`;
}

function rowElement(at) {
  const fact = list.facts[at];
  const picture = fact.images > 0 && fact.image !== null
    ? element("img", { alt: "", loading: "lazy", decoding: "async", src: imageAddress(at, 0, fact.image, true) })
    : element("span", { class: "blank" });
  const text = element("span", {},
    element("span", { class: "asked" }, fact.question),
    element("span", { class: "where" }, [fact.benchmark, fact.type].filter(Boolean).join(" \u00b7 ")));
  const score = element("span", { class: "score" },
    fact.of > 0 ? element("span", {}, `${fact.right}/${fact.of} right`) : `${fact.steps} steps`,
    fact.differ ? element("div", { class: "none" }, "differ") : null);
  const button = element("button", { type: "button", "data-at": at, onclick: () => goTo(`problem-${at}`) },
    picture, text, score);
  markCurrent(button, at === list.current);
  return element("li", {}, button);
}

function mark(at) {
  list.current = at;
  const place = list.found.indexOf(at);
  if (place >= 0 && Math.floor(place / ROWS) !== list.page) {
    list.page = Math.floor(place / ROWS);
    showPage();
  }
  for (const button of byId("list").querySelectorAll("button")) {
    markCurrent(button, Number(button.dataset.at) === at);
  }
  byId("list").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}

