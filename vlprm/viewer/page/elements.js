// Elements of the page. All text goes in as text nodes: what a model wrote can never become markup.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "onclick") {
      made.addEventListener("click", value);
    } else if (value !== undefined && value !== false) {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function markCurrent(made, isCurrent) {
  if (isCurrent) {
    made.setAttribute("aria-current", "true");
  } else {
    made.removeAttribute("aria-current");
  }
}

// A right answer, a wrong one, or none: a mark, a word and a class, so that colour says nothing alone.
function outcome(right) {
  if (right === undefined || right === null) {
    return { mark: "\u2013", word: "no answer", name: "none" };
  }
  return right ? { mark: "\u2713", word: "right", name: "right" } : { mark: "\u2717", word: "wrong", name: "wrong" };
}

const shown = (number) => number.toFixed(2);

// A step coloured by its reward: from red by yellow to green. `lightUp` is called with the step's region, or null.
function stepElement(tag, step, facts, lightUp) {
  const made = element(tag, { class: "step" });
  if (step.reward === undefined) {
    made.classList.add("unscored");
  } else {
    made.classList.toggle("upper", step.reward >= 0.5);
    made.style.setProperty("--share", `${200 * (step.reward >= 0.5 ? step.reward - 0.5 : step.reward)}%`);
    made.append(element("span", { class: "reward" }, facts ?? shown(step.reward)));
  }
  made.append(element("span", { class: "text" }, ...stepNodes(step.text ?? "")));
  if (step.correct === false) {
    made.classList.add("error");
    made.append(" ", element("span", { class: "label wrong" }, `\u2717 ${[step.error_kind, "error"].filter(Boolean).join(" ")}`));
  } else if (step.correct === true) {
    made.append(" ", element("span", { class: "label right", title: "this step is correct" }, "\u2713"));
  }
  if (step.note) {
    made.append(element("div", { class: "said" }, step.note));
  }
  if (step.said) {
    made.append(element("div", { class: "said" }, "judge: ", ...textNodes(step.said)));
  }
  if (step.correction) {
    made.append(element("div", { class: "said" }, "instead: ", ...stepNodes(step.correction)));
  }
  if (step.region) {
    made.tabIndex = 0;
    for (const event of ["mouseenter", "focus"]) {
      made.addEventListener(event, () => lightUp(step.region));
    }
    for (const event of ["mouseleave", "blur"]) {
      made.addEventListener(event, () => lightUp(null));
    }
  }
  return made;
}

// The rewards along the steps of a solution: from 0 to 1 upwards, true errors in red, one half dashed.
function rewardPlot(steps) {
  const x = (i) => `${steps.length === 1 ? 50 : (100 * i) / (steps.length - 1)}%`;
  const y = (reward) => 60 - 52 * reward;
  const scored = steps.map((step, i) => ({ ...step, i })).filter((step) => step.reward !== undefined);
  const label = `rewards along the steps: ${scored.map((step) => shown(step.reward)).join(", ")}`;
  const plot = drawn("svg", { class: "plotline", role: "img", "aria-label": label });
  for (const [share, dashes] of [[0, ""], [0.5, "3 3"], [1, ""]]) {
    const ends = { x1: "-2%", x2: "102%", y1: y(share), y2: y(share) };
    plot.append(drawn("line", { class: "axis", "stroke-dasharray": dashes, ...ends }));
    plot.append(drawn("text", { class: "up", x: "-2%", dx: -5, y: y(share) + 4 }, String(share)));
  }
  scored.slice(1).forEach((step, i) => {
    const from = scored[i];
    plot.append(drawn("line", { class: "course", x1: x(from.i), x2: x(step.i), y1: y(from.reward), y2: y(step.reward) }));
  });
  for (const step of scored) {
    const dot = { cx: x(step.i), cy: y(step.reward), r: 3.5, class: step.correct === false ? "wrong" : "" };
    plot.append(drawn("circle", dot, drawn("title", {}, `step ${step.i + 1}: ${shown(step.reward)}`)));
    if (steps.length <= 20) {
      plot.append(drawn("text", { class: "across", x: x(step.i), y: 76 }, String(step.i + 1)));
    }
  }
  return plot;
}

// What colours, marks and lines mean; a tree has targets and verdicts where candidates have rewards and the truth.
function legend(parts) {
  return element("ul", { class: "legend", "aria-label": "legend" },
    ...parts.map(([sign, ...text]) => element("li", {}, element("span", { class: `sign ${sign}` }), ...text)));
}
