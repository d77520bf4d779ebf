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
  made.append(element("span", { class: "text" }, step.text ?? ""));
  if (step.correct === false) {
    made.classList.add("error");
    made.append(" ", element("span", { class: "label wrong" }, `\u2717 ${step.error_kind ?? ""} error`));
  } else if (step.correct === true) {
    made.append(" ", element("span", { class: "label right", title: "this step is correct" }, "\u2713"));
  }
  if (step.said) {
    made.append(element("div", { class: "said" }, `judge: ${step.said}`));
  }
  if (step.correction) {
    made.append(element("div", { class: "said" }, `instead: ${step.correction}`));
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
  const width = 240;
  const height = 56;
  const x = (i) => 8 + ((width - 16) * i) / Math.max(steps.length - 1, 1);
  const y = (reward) => height - 6 - (height - 12) * reward;
  const scored = steps.map((step, i) => ({ ...step, i })).filter((step) => step.reward !== undefined);
  const label = `rewards along the steps: ${scored.map((step) => shown(step.reward)).join(", ")}`;
  const plot = drawn("svg", { class: "plotline", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const [share, dashes] of [[0, ""], [0.5, "3 3"], [1, ""]]) {
    const ends = { x1: 0, x2: width, y1: y(share), y2: y(share) };
    plot.append(drawn("line", { class: "axis", "stroke-dasharray": dashes, ...ends }));
  }
  plot.append(drawn("polyline", { points: scored.map((step) => `${x(step.i)},${y(step.reward)}`).join(" ") }));
  for (const step of scored) {
    const dot = { cx: x(step.i), cy: y(step.reward), r: 3, class: step.correct === false ? "wrong" : "" };
    plot.append(drawn("circle", dot, drawn("title", {}, `step ${step.i + 1}: ${shown(step.reward)}`)));
  }
  return plot;
}

