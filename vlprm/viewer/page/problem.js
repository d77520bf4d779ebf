// One problem: its images with the regions that were zoomed into, what each method chose, its candidates side by side,
// and its search tree.

const WIDEST = 480; // an image is shown as large as fits in this frame
const HIGHEST = 340;
const LARGEST = 4; // times its size, for a small image

function problemElements(at, problem) {
  const { box, lightUp } = pictures(at, problem);
  const about = [asWords(problem.benchmark ?? ""), asWords(problem.question_type ?? ""), problem.id]
    .filter(Boolean).join(" \u00b7 ");
  const gold = problem.answer === undefined ? [element("span", { class: "quiet" }, "not given")] : answerNodes(problem.answer);
  const made = [
    walkBar(at),
    element("div", { class: "quiet where-from" }, about),
    element("p", { class: "question" }, ...textNodes(problem.question ?? "")),
    element("div", { class: "gold" }, "Gold answer: ", element("b", {}, ...gold)),
    element("div", { class: "about" }, box, methodTable(problem)),
  ];
  if ((problem.candidates ?? []).length > 0) {
    made.push(...candidateElements(problem, lightUp));
  }
  if (problem.tree) {
    made.push(...treeElements(problem.tree, lightUp));
  }
  return made;
}

// The way to the list and to the neighbours; on a wide screen the list is next to the problem.
function walkBar(at) {
  const place = list.found.indexOf(at);
  const go = (by) => ({ type: "button", onclick: () => step(by), disabled: list.found[place + by] === undefined });
  return element("nav", { class: "walk", "aria-label": "problems" },
    element("button", { type: "button", class: "back", onclick: () => goTo(list.group) }, `\u2039 All ${namesOf(list.group)}`),
    element("span", { class: "quiet" }, place < 0 ? "" : `${counted(place + 1)} of ${counted(list.found.length)}`),
    element("button", go(-1), "\u2039 Previous"),
    element("button", go(1), "Next \u203a"));
}

// The images, and a function that lights up a region on the image that it is of.
function pictures(at, problem, widest = WIDEST, highest = HIGHEST) {
  const box = element("div", { class: "pictures" });
  const regions = [];
  const zooms = zoomRegions(problem);
  problem.images.forEach((image, i) => {
    if (image === null) {
      box.append(element("p", { class: "wrong" }, `Image ${i + 1} cannot be read.`));
      return;
    }
    const { width, height } = image; // the frame has its size before the image arrives, so nothing below it moves
    const img = element("img", { alt: `image ${i + 1} of the problem`, src: imageAddress(at, i, image.key, false), width, height });
    const fit = Math.min(widest / width, highest / height, LARGEST);
    img.style.width = `${width * (fit >= 2 ? Math.floor(fit) : fit)}px`; // whole pixels of a small image stay sharp
    img.classList.toggle("small", fit >= 2);
    const here = zooms.filter(([, region]) => (region.image ?? 0) === i);
    const frame = element("div", { class: "picture" }, img, here.length > 0 ? overlay(image, here, regions) : null);
    frame.style.setProperty("--shape", width / height);
    const size = `${counted(width)} \u00d7 ${counted(height)} pixels`;
    box.append(element("figure", {}, frame,
      element("figcaption", {}, problem.images.length > 1 ? `image ${i + 1}, ${size}` : size)));
  });
  const lightUp = (region) => {
    for (const [key, rect] of regions) {
      rect.classList.toggle("lit", region !== null && key === JSON.stringify(region));
    }
  };
  return { box, lightUp };
}

function zoomRegions(problem) {
  const steps = [...(problem.candidates ?? []).flatMap((candidate) => candidate.steps ?? []),
    ...(problem.tree ?? []).map((node) => node.step)];
  const found = new Map(steps.filter((step) => step.region).map((step) => [JSON.stringify(step.region), step.region]));
  return [...found];
}

function overlay(image, found, regions) {
  const svg = drawn("svg", { viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: "none" });
  for (const [key, { x0, y0, x1, y1 }] of found) {
    const rect = drawn("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
    rect.append(drawn("title", {}, `zoomed: ${[x0, y0, x1, y1].map(Math.round).join(", ")}`));
    regions.push([key, rect]);
    svg.append(rect);
  }
  return svg;
}

function methodTable(problem) {
  const chosen = Object.entries(problem.chosen ?? {});
  if (chosen.length === 0) {
    return null;
  }
  const judged = problem.answer !== undefined;
  const rows = chosen.map(([method, i]) => {
    const candidate = problem.candidates[i];
    const { mark, word, name } = outcome(candidate.right);
    return element("tr", {},
      element("th", { scope: "row" }, nameOf(method)),
      element("td", {}, element("a", { href: `#candidate-${i}`, "data-candidate": i }, `#${i + 1}`)),
      element("td", {}, ...answerNodes(candidate.answer ?? "")),
      judged ? element("td", { class: name }, `${mark} ${word}`) : null);
  });
  const titles = ["method", "chose", "answer", ...(judged ? [""] : [])];
  const head = element("tr", {}, ...titles.map((word) => element("th", { scope: "col" }, word)));
  return element("div", { class: "scroll" },
    element("table", { class: "methods" }, element("thead", {}, head), element("tbody", {}, ...rows)));
}

function candidateElements(problem, lightUp) {
  const { candidates } = problem;
  const judged = problem.answer !== undefined;
  const right = candidates.filter((candidate) => candidate.right === true).length;
  const steps = candidates.flatMap((candidate) => candidate.steps ?? []);
  const count = `${counted(candidates.length)} candidate${candidates.length === 1 ? "" : "s"}`;
  const signs = [
    steps.some((step) => step.reward !== undefined) && ["colours", "reward of a step, 0 to 1"],
    steps.some((step) => step.correct !== undefined) && ["truth", "\u2713 right, \u2717 wrong: the ground truth of the step"],
    steps.some((step) => step.reward !== undefined) && ["dashes", "reward 0.5"],
    steps.some((step) => step.region) && ["zoom", "region that a zoom step shows"],
  ].filter(Boolean);
  return [
    element("h2", {}, judged ? `${count}, ${counted(right)} right` : count),
    judged ? null : element("p", { class: "note" }, "Without a gold answer, nothing says which candidates are right."),
    signs.length > 0 ? legend(signs) : null,
    element("div", { class: "candidates" },
      ...candidates.map((candidate, i) => candidateElement(candidate, i, problem, lightUp))),
  ].filter(Boolean);
}

function candidateElement(candidate, i, problem, lightUp) {
  const judged = problem.answer !== undefined;
  const { mark, word, name } = outcome(candidate.right);
  const steps = candidate.steps ?? [];
  const answer = candidate.answer === undefined
    ? [`none (${asWords(candidate.stop ?? "not known why")})`] : answerNodes(candidate.answer);
  const methods = Object.keys(problem.chosen ?? {}).filter((method) => problem.chosen[method] === i);
  const rewards = Object.entries(candidate.rewards ?? {}).filter(([, value]) => value !== null);
  return element("section", { class: `candidate is-${judged ? name : "open"}`, id: `candidate-${i}`, tabindex: -1 },
    element("header", {},
      element("h3", {}, `#${i + 1}  answer: `, ...answer),
      judged ? element("span", { class: name }, `${mark} ${word}`) : null),
    methods.length > 0 ? element("div", { class: "chips" }, element("span", { class: "quiet" }, "chosen by"),
      ...methods.map((method) => element("span", { class: "chip" }, nameOf(method)))) : null,
    steps.some((step) => step.reward !== undefined) ? rewardPlot(steps) : null,
    element("ol", { class: "steps" }, ...steps.map((step) => stepElement("li", step, undefined, lightUp))),
    rewards.length > 0 ? element("div", { class: "rewards" }, "reward: ",
      rewards.map(([rule, value]) => `${rule === "whole" ? "whole solution" : asWords(rule)} ${shown(value)}`).join(" \u00b7 "))
      : null,
    candidate.critique ? element("details", {}, element("summary", {}, "critique"),
      element("pre", { class: "critique" }, candidate.critique)) : null);
}
