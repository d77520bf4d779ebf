// A search tree that one can open: each step with the right rollouts of all, coloured by its target. What lies below a
// step is made when it is opened first.

const OPEN_STEPS = 60; // a tree of at most this many steps is open from the start

function treeElements(nodes, lightUp) {
  const below = new Map();
  nodes.forEach((node, i) => {
    below.set(node.parent, [...(below.get(node.parent) ?? []), i]);
  });
  const list = branch(nodes, below, -1, nodes.length <= OPEN_STEPS, lightUp);
  list.classList.add("first");
  const openAll = (open) => {
    let left = [...list.querySelectorAll("details")];
    while (left.length > 0) { // opening a step makes those below it
      left.forEach((details) => { details.open = open; fill(details); });
      left = open ? left.flatMap((details) => [...details.querySelectorAll("details:not([open])")]) : [];
    }
  };
  return [
    element("h2", {}, `Search tree, ${counted(nodes.length)} step${nodes.length === 1 ? "" : "s"}`),
    legend([
      ["colours", "fused target of a step, 0 to 1 (grey: no label)"],
      ["truth", "\u2713 right, \u2717 wrong: the judge's verdict"],
      ["rollouts", "3/4", ": 3 of 4 rollouts from this step are right"],
      ...(nodes.some((node) => node.step.region) ? [["zoom", "region that a zoom step shows"]] : []),
    ]),
    element("div", { class: "actions" },
      element("button", { type: "button", onclick: () => openAll(true) }, "Open all"),
      element("button", { type: "button", onclick: () => openAll(false) }, "Close all")),
    list,
  ];
}

const fillers = new WeakMap();

function fill(details) {
  fillers.get(details)?.();
  fillers.delete(details);
}

function branch(nodes, below, parent, open, lightUp) {
  return element("ul", { class: "tree" }, ...(below.get(parent) ?? []).map((i) => {
    const { step, mc_correct, mc_valid } = nodes[i];
    const rollouts = mc_valid === 0 ? "no rollouts" : `${counted(mc_correct)}/${counted(mc_valid)}`;
    const target = step.reward === undefined ? "" : `, target ${shown(step.reward)}`;
    const made = stepElement("span", { reward: undefined, ...step }, `${rollouts}${target}`, lightUp);
    if (!below.has(i)) {
      return element("li", { class: "leaf" }, made);
    }
    const details = element("details", { "data-step": i }, element("summary", {}, made));
    fillers.set(details, () => details.append(branch(nodes, below, i, open, lightUp)));
    details.addEventListener("toggle", () => fill(details));
    if (open) {
      details.open = true;
      fill(details);
    }
    return element("li", {}, details);
  }));
}

