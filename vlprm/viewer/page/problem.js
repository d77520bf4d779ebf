// One problem: its images with the regions that were zoomed into, what each method chose, its candidates side by side,
// and its search tree.

const WIDEST = 480; // an image is shown as large as fits in this frame
const HIGHEST = 320;

function problemElements(at, problem) {
  const { box, lightUp } = pictures(at, problem);
  const about = [problem.benchmark, problem.question_type, problem.id].filter(Boolean).join(" \u00b7 ");
  const made = [
    element("div", { class: "quiet" }, about),
    element("p", { class: "question" }, problem.question ?? ""),
    element("div", {}, "Gold answer: ", element("b", {}, problem.answer ?? "not known")),
    element("div", { class: "about" }, box, methodTable(problem)),
  ];
  const candidates = problem.candidates ?? [];
  if (candidates.length > 0) {
    const right = candidates.filter((candidate) => candidate.right === true).length;
    made.push(element("h2", {}, `${candidates.length} candidates, ${right} right`));
    made.push(element("div", { class: "candidates" },
      ...candidates.map((candidate, i) => candidateElement(candidate, i, problem.chosen ?? {}, lightUp))));
  }
  if (problem.tree) {
    made.push(...treeElements(problem.tree, lightUp));
  }
  return made;
}

// The images, and a function that lights up a region on the first of them.
function pictures(at, problem) {
  const box = element("div", {});
  const regions = [];
  problem.images.forEach((image, i) => {
    if (image === null) {
      box.append(element("p", { class: "wrong" }, `Image ${i + 1} cannot be read.`));
      return;
    }
    const img = element("img", { alt: `image ${i + 1} of the problem`, src: imageAddress(at, i, image.key, false) });
    img.style.width = `${image.width * Math.min(WIDEST / image.width, HIGHEST / image.height)}px`;
    const frame = element("div", { class: "picture" }, img);
    if (i === 0) {
      frame.append(overlay(image, zoomRegions(problem), regions));
    }
    box.append(frame);
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
  const rows = chosen.map(([method, i]) => {
    const candidate = problem.candidates[i];
    const { mark, word, name } = outcome(candidate.right);
    return element("tr", {},
      element("td", {}, method.replaceAll("_", " ")),
      element("td", {}, element("a", { href: `#candidate-${i}`, "data-candidate": i }, `#${i + 1}`)),
      element("td", {}, candidate.answer ?? ""),
      element("td", { class: name }, `${mark} ${word}`));
  });
  const head = element("tr", {}, ...["method", "chose", "answer", ""].map((word) => element("th", {}, word)));
  return element("table", { class: "methods" }, element("thead", {}, head), element("tbody", {}, ...rows));
}

function candidateElement(candidate, i, chosen, lightUp) {
  const { mark, word, name } = outcome(candidate.right);
  const steps = candidate.steps ?? [];
  const answer = candidate.answer ?? `none (${candidate.stop ?? "not known why"})`;
  const methods = Object.keys(chosen).filter((method) => chosen[method] === i);
  const rewards = Object.entries(candidate.rewards ?? {}).filter(([, value]) => value !== null);
  return element("section", { class: `candidate is-${name}`, id: `candidate-${i}`, tabindex: -1 },
    element("header", {},
      element("h3", {}, `#${i + 1}  answer: ${answer}`), element("span", { class: name }, `${mark} ${word}`)),
    element("div", { class: "chips" },
      ...methods.map((method) => element("span", { class: "chip" }, method.replaceAll("_", " ")))),
    steps.some((step) => step.reward !== undefined) ? rewardPlot(steps) : null,
    element("ol", { class: "steps" }, ...steps.map((step) => stepElement("li", step, undefined, lightUp))),
    element("div", { class: "rewards" },
      rewards.map(([rule, value]) => `${rule.replaceAll("_", " ")} ${shown(value)}`).join(" \u00b7 ")),
    candidate.critique ? element("details", {}, element("summary", {}, "critique"),
      element("pre", { class: "critique" }, candidate.critique)) : null);
}

