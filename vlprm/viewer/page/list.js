// The lists of problems and their filters: evaluated problems and the search trees of training are two lists. All facts
// are in memory (a few hundred bytes a problem); only one page of rows is in the document.

const ROWS = 50;
const ANY = "any";
const GROUPS = ["problems", "trees"];

const byId = (name) => document.getElementById(name);
const filters = Object.fromEntries(
  ["words", "benchmark", "type", "method", "outcome", "method2", "outcome2", "kind", "differ"].map((n) => [n, byId(n)]));

const list = { facts: [], found: [], page: 0, current: null, group: "problems" };

const namesOf = (group) => (group === "trees" ? "search trees" : "problems");
const groupOf = (fact) => (fact.of === 0 && fact.steps > 0 ? "trees" : "problems");
const ofGroup = () => list.facts.filter((fact) => groupOf(fact) === list.group);

function addFacts(facts) {
  list.facts = list.facts.concat(facts);
  for (const group of GROUPS) {
    const size = list.facts.filter((fact) => groupOf(fact) === group).length;
    const link = document.querySelector(`nav a[href="#${group}"]`);
    if (link !== null) {
      link.hidden = size === 0;
      link.querySelector("span").textContent = counted(size);
    }
  }
  if (ofGroup().length === 0 && list.facts.length > 0) {
    list.group = GROUPS.find((group) => list.facts.some((fact) => groupOf(fact) === group));
  }
  document.body.classList.toggle("single", Number(byId("view-problems").dataset.total) === 1);
  offerAll();
  find();
  showPage();
}

function showGroup(group) {
  if (group !== list.group && list.facts.some((fact) => groupOf(fact) === group)) {
    list.group = group;
    offerAll();
    clearFilters();
  }
}

function clearFilters() {
  byId("filters").reset();
  filter();
}

// The values that the problems of the list have. A filter with one value would keep all or none, so it is hidden.
function offerAll() {
  const here = ofGroup();
  const methods = new Set(here.flatMap((fact) => Object.keys(fact.outcomes)));
  const kinds = new Set(here.flatMap((fact) => fact.kinds));
  offer(filters.benchmark, new Set(here.map((fact) => fact.benchmark)), 2);
  offer(filters.type, new Set(here.map((fact) => fact.type)), 2);
  offer(filters.kind, kinds, 1);
  offer(filters.method, methods, 1);
  offer(filters.method2, methods, 2);
  filters.differ.closest("label").hidden = !here.some((fact) => fact.differ);
  byId("more").hidden = byId("more").querySelectorAll("label:not([hidden])").length === 0;
}

function offer(select, values, fewest) {
  const kept = select.value;
  const name = select === filters.method || select === filters.method2 ? nameOf : asWords;
  const sorted = [...values].filter((value) => value !== "").sort();
  select.replaceChildren(...[ANY, ...sorted].map((value) =>
    element("option", { value }, value === ANY ? ANY : name(value))));
  select.value = values.has(kept) ? kept : ANY;
  select.closest("label").hidden = sorted.length < fewest;
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
    return groupOf(fact) === list.group && is(filters.benchmark, fact.benchmark) && is(filters.type, fact.type)
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
  byId("page").textContent = `page ${counted(list.page + 1)} of ${counted(pages)}`;
  byId("before").disabled = list.page === 0;
  byId("after").disabled = list.page >= pages - 1;
  byId("pager").hidden = pages === 1;
  const total = Number(byId("view-problems").dataset.total);
  const size = ofGroup().length;
  const loaded = list.facts.length < total ? `; this page has ${counted(list.facts.length)} of the run's ${counted(total)}` : "";
  byId("count").textContent = `${counted(list.found.length)} of ${counted(size)} ${namesOf(list.group)}${loaded}`;
  byId("clear").hidden = list.found.length === size;
  document.querySelector(".walk")?.replaceWith(walkBar(list.current));
}

function rowElement(at) {
  const fact = list.facts[at];
  const picture = fact.images > 0 && fact.image !== null
    ? element("img", { alt: "", loading: "lazy", decoding: "async", src: imageAddress(at, 0, fact.image, true) })
    : element("span", { class: "blank" });
  const text = element("span", {},
    element("span", { class: "asked" }, ...textNodes(fact.question)),
    element("span", { class: "where" }, [fact.benchmark, fact.type].filter(Boolean).map(asWords).join(" \u00b7 ")));
  const score = element("span", { class: "score" }, scoreOf(fact),
    fact.differ ? element("div", { class: "none" }, "methods differ") : null);
  const button = element("button", { type: "button", "data-at": at, onclick: () => goTo(`problem-${at}`) },
    picture, text, score);
  markCurrent(button, at === list.current);
  return element("li", {}, button);
}

function scoreOf(fact) {
  if (groupOf(fact) === "trees") {
    return `${counted(fact.steps)} step${fact.steps === 1 ? "" : "s"}`;
  }
  return fact.right === null ? `${counted(fact.of)} candidates` : `${counted(fact.right)}/${counted(fact.of)} right`;
}

function mark(at) {
  list.current = at;
  if (list.facts[at] !== undefined) {
    showGroup(groupOf(list.facts[at]));
  }
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
