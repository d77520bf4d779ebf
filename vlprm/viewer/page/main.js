// What the address says is shown: #results, #problems, or #problem-7. Keys go from problem to problem.

let routed = null; // the address that is shown

function goTo(name) {
  location.hash = name;
  route(); // now: the browser's event comes later, after the next key
}

function route() {
  if (routed === location.hash) {
    return;
  }
  routed = location.hash;
  const opened = /^#problem-(\d+)$/.exec(location.hash);
  const results = byId("results");
  const browsing = opened !== null || location.hash === "#problems" || results.childElementCount === 0;
  byId("problems").hidden = !browsing;
  results.hidden = browsing;
  for (const link of document.querySelectorAll("nav a")) {
    markCurrent(link, (link.hash === "#problems") === browsing);
  }
  if (opened !== null) {
    show(Number(opened[1]));
  }
}

async function show(at) {
  const place = byId("problem");
  mark(at);
  try {
    const problem = await readProblem(at);
    if (list.current === at) { // the answer of a slow server may come after another problem was opened
      place.replaceChildren(...problemElements(at, problem));
      place.scrollTop = 0;
      place.focus({ preventScroll: true });
      place.scrollIntoView(); // on a narrow screen it stands below the list
    }
  } catch (error) {
    place.replaceChildren(element("p", { class: "wrong" }, `Problem ${at} cannot be shown: ${error.message}`));
  }
}

function step(by) {
  const place = list.found.indexOf(list.current);
  const next = list.found[place < 0 ? 0 : place + by];
  if (next !== undefined) {
    goTo(`problem-${next}`);
  }
}

const KEYS = { j: () => step(1), k: () => step(-1), "/": () => filters.words.focus() };

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && !byId("problems").hidden) {
    (byId("list").querySelector("[aria-current]") ?? byId("list").querySelector("button"))?.focus();
  } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && event.key in KEYS) {
    event.preventDefault();
    if (byId("problems").hidden) {
      goTo("problems");
    }
    KEYS[event.key]();
  } else if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target.matches("#list button")) {
    const row = event.target.parentElement;
    const next = event.key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling;
    event.preventDefault();
    next?.firstElementChild.focus();
  }
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-candidate]");
  if (link !== null) { // within the problem: the address goes on naming the problem
    event.preventDefault();
    const candidate = byId(`candidate-${link.dataset.candidate}`);
    candidate.scrollIntoView({ block: "nearest" });
    candidate.focus({ preventScroll: true });
  }
});

byId("filters").addEventListener("input", filter);
byId("filters").addEventListener("reset", () => setTimeout(filter)); // after the fields are as they were
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("before").addEventListener("click", () => { list.page -= 1; showPage(); });
byId("after").addEventListener("click", () => { list.page += 1; showPage(); });
window.addEventListener("hashchange", route);

readFacts(Number(byId("problems").dataset.total), addFacts).catch((error) => {
  byId("count").textContent = `The problems cannot be read: ${error.message}`;
});
route();
