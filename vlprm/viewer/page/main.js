// What the address says is shown: #results, #problems, #trees, or #problem-7. Keys go from problem to problem.

let routed = null; // the address that is shown
const WIDE = matchMedia("(min-width: 60.01rem)"); // the list and a problem side by side

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
  const group = GROUPS.find((name) => location.hash === `#${name}`);
  const results = byId("view-results");
  const browsing = opened !== null || group !== undefined || results.childElementCount === 0;
  byId("view-problems").hidden = !browsing;
  results.hidden = browsing;
  byId("view-problems").classList.toggle("opened", opened !== null);
  if (opened !== null) {
    show(Number(opened[1]), true);
  } else if (browsing) {
    showGroup(group ?? list.group);
    openFirst();
    (byId("list").querySelector("[aria-current]") ?? document.body).scrollIntoView({ block: "nearest" });
  }
  markViews();
  hintAtScrolling();
}

function markViews() {
  const here = byId("view-problems").hidden ? "results" : list.group;
  for (const link of document.querySelectorAll("nav a[href^='#']")) {
    markCurrent(link, link.hash === `#${here}`);
  }
}

// Next to the list is the problem that was open last, or the first one; a single problem has no list.
function openFirst() {
  if ((WIDE.matches || document.body.classList.contains("single")) && !byId("view-problems").hidden && list.found.length > 0) {
    show(list.found.includes(list.current) ? list.current : list.found[0], false);
  }
}

async function show(at, takesFocus) {
  const place = byId("problem");
  mark(at);
  try {
    const problem = await readProblem(at);
    if (list.current === at) { // the answer of a slow server may come after another problem was opened
      place.replaceChildren(...problemElements(at, problem).filter(Boolean));
      place.scrollTop = 0;
      hintAtScrolling();
      if (takesFocus) {
        place.focus({ preventScroll: true });
        window.scrollTo(0, 0);
      }
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

function toSearch() {
  if (byId("view-problems").classList.contains("opened") && !WIDE.matches) {
    goTo(list.group);
  }
  filters.words.focus();
}

const KEYS = { j: () => step(1), k: () => step(-1), "/": toSearch };

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select");
  if (event.key === "Escape" && !byId("view-problems").hidden) {
    if (byId("view-problems").classList.contains("opened") && !WIDE.matches) {
      goTo(list.group);
    }
    (byId("list").querySelector("[aria-current]") ?? byId("list").querySelector("button"))?.focus();
  } else if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && event.key in KEYS) {
    event.preventDefault();
    if (byId("view-problems").hidden) {
      goTo(list.group);
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

// A table that is wider than its place scrolls inside itself, and a line below it says so.
function hintAtScrolling() {
  for (const place of document.querySelectorAll(".scroll")) {
    const isWider = place.scrollWidth > place.clientWidth + 1;
    place.classList.toggle("wider", isWider);
    if (isWider) {
      place.tabIndex = 0; // so that the arrow keys scroll it
    } else {
      place.removeAttribute("tabindex");
    }
  }
}

byId("filters").addEventListener("input", () => { filter(); openFirst(); });
byId("clear").addEventListener("click", clearFilters);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("before").addEventListener("click", () => { list.page -= 1; showPage(); });
byId("after").addEventListener("click", () => { list.page += 1; showPage(); });
window.addEventListener("hashchange", route);
window.addEventListener("resize", hintAtScrolling);

let first = true;
readFacts(Number(byId("view-problems").dataset.total), (facts) => {
  addFacts(facts);
  if (first) {
    first = false;
    const opened = byId("view-problems").classList.contains("opened");
    if (!opened && location.hash === "#trees") {
      showGroup("trees");
    }
    (opened ? () => list.current !== null && mark(list.current) : openFirst)();
    markViews();
  }
}).catch((error) => {
  byId("count").textContent = `The problems cannot be read: ${error.message}`;
});
route();
