// Labels by a person: one step is asked, the most uncertain one that is open; any other step of its solution can be
// labelled too. A verdict is shown once the server has stored it. The address says which question is shown.

const FRAME = [720, 620]; // in which an image is shown
const SAID = { correct: "right", perception: "wrong: perception", reasoning: "wrong: reasoning", action: "wrong: action", unsure: "not sure" };
const CHOICE_KEYS = { 1: "correct", 2: "perception", 3: "reasoning", 4: "action", 0: "unsure" };

const byId = (name) => document.getElementById(name);
const asked = { at: null, question: null, step: 0, progress: null, busy: false, lightUp: () => {} };

async function ask(at) {
  const question = await fetched(`question?at=${at}`);
  Object.assign(asked, { at, question, step: question.step });
  history.replaceState(null, "", `#${at + 1}`);
  draw();
  window.scrollTo(0, 0);
  point(question.step);
}

function draw() {
  const { problem, votes, rollouts, mine, reasons } = asked.question;
  const { box, lightUp } = pictures(asked.at, problem, ...FRAME);
  asked.lightUp = lightUp;
  const [candidate] = problem.candidates;
  const about = [asWords(problem.benchmark ?? ""), asWords(problem.question_type ?? ""), problem.id].filter(Boolean);
  const gold = problem.answer === undefined ? [element("span", { class: "quiet" }, "not given")] : answerNodes(problem.answer);
  const steps = candidate.steps.map((step, i) => {
    const [right, valid] = rollouts[i];
    const counts = valid === 0 ? "" : `${counted(right)}/${counted(valid)} rollouts, `;
    const made = stepElement("li", step, step.reward === undefined ? undefined : `${counts}target ${shown(step.reward)}`, () => {});
    made.dataset.step = i;
    made.addEventListener("click", () => point(i));
    const said = [...votes[i].map(voteElement), ...mineElements(mine[i], reasons[i])];
    if (said.length > 0) {
      made.append(element("ul", { class: "votes" }, ...said));
    }
    return made;
  });
  byId("asked").replaceChildren(
    element("div", { class: "head" }, element("div", { class: "quiet where-from" }, about.join(" \u00b7 ")),
      element("p", { class: "question" }, ...textNodes(problem.question ?? "")),
      element("div", { class: "gold" }, "Gold answer: ", element("b", {}, ...gold))),
    box, element("ol", { class: "steps" }, ...steps));
}

function voteElement({ source, correct, error_kind, reason }) {
  const verdict = correct ? "\u2713 right" : `\u2717 ${[error_kind, "error"].filter(Boolean).join(" ")}`;
  return element("li", {}, `${source}: `, element("span", { class: correct ? "right" : "wrong" }, verdict),
    ...(reason ? [". ", ...textNodes(reason)] : []));
}

function mineElements(verdict, reason) {
  return verdict === null ? [] : [element("li", { class: "mine" }, `you: ${SAID[verdict]}`, reason ? `. ${reason}` : null)];
}

// The step that keys and buttons label.
function point(step) {
  asked.step = step;
  for (const made of document.querySelectorAll("#asked .step")) {
    const isHere = Number(made.dataset.step) === step;
    markCurrent(made, isHere);
    if (isHere) {
      made.scrollIntoView({ block: "nearest" });
    }
  }
  asked.lightUp(asked.question.problem.candidates[0].steps[step].region ?? null);
  const mine = asked.question.mine[step];
  byId("reason").value = asked.question.reasons[step] ?? "";
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === mine));
  }
}

const move = (by) => {
  const last = asked.question.problem.candidates[0].steps.length - 1;
  point(Math.min(last, Math.max(0, asked.step + by)));
};

// While a verdict is on its way, and until the next question is shown, keys and buttons do nothing: a quick second one
// would label the step before.
async function say(verdict) {
  if (asked.question === null || asked.busy) {
    return;
  }
  asked.busy = true;
  try {
    await save(verdict);
  } finally {
    asked.busy = false;
  }
}

async function save(verdict) {
  const { at, step, question } = asked;
  const reason = verdict === "unsure" ? "" : byId("reason").value.trim();
  try {
    asked.progress = await sent("verdict", { at, step, verdict, reason });
  } catch (error) {
    fail(`Not saved: ${error.message}. If the command has ended, start it again; then give the verdict again.`);
    return;
  }
  byId("failed").hidden = true;
  question.mine[step] = verdict;
  question.reasons[step] = reason;
  showProgress();
  const isMoot = step < question.step && verdict !== "correct" && verdict !== "unsure"; // what follows an error is not asked
  if ((step === question.step || isMoot) && asked.progress.next !== null) {
    await ask(asked.progress.next);
  } else {
    draw();
    point(step);
  }
}

async function next() {
  asked.progress = await fetched(`progress?after=${asked.at}`);
  showProgress();
  await ask(asked.progress.next ?? asked.at);
}

function showProgress() {
  const { answered, moot, total, next: open } = asked.progress;
  byId("bar").max = total;
  byId("bar").value = answered + moot;
  const after = moot > 0 ? ` (${counted(moot)} after an error)` : "";
  byId("progress").textContent = `${counted(answered + moot)} of ${counted(total)}${after}${open === null ? ", done" : ""}`;
}

function fail(text) {
  byId("failed").textContent = text;
  byId("failed").hidden = false;
}

async function sent(address, body) {
  const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) {
    throw new Error(await answer.text());
  }
  return answer.json();
}

const told = (doing) => doing.catch((error) => fail(`Not shown: ${error.message}`));

const MOVES = { j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  n: () => told(next()), r: () => byId("reason").focus() };

document.addEventListener("keydown", (event) => {
  if (asked.question === null || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (event.target === byId("reason")) {
    if (event.key === "Escape") {
      event.target.blur();
    }
    return;
  }
  if (event.key in CHOICE_KEYS) {
    told(say(CHOICE_KEYS[event.key]));
  } else if (event.key in MOVES) {
    event.preventDefault();
    MOVES[event.key]();
  }
});

for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => told(say(button.dataset.verdict)));
}
byId("next").addEventListener("click", () => told(next()));
byId("say").addEventListener("submit", (event) => event.preventDefault());

told((async () => {
  const named = /^#(\d+)$/.exec(location.hash);
  asked.progress = await fetched("progress?after=999999999");
  showProgress();
  const at = named === null ? asked.progress.next ?? 0 : Number(named[1]) - 1;
  await ask(Math.min(Math.max(at, 0), asked.progress.total - 1));
})());
