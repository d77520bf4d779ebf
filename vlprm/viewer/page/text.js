// Text of problems and models as elements: marks of images as chips, LaTeX as formulas. All else stays as it was
// written, and so does a formula that page/math.js cannot read in full.

const MARK = /<image[ _]?(\d*)>/; // where the text refers to an image
const TAG = /^\s*\[(perception|reasoning|zoom|answer)\][ \t]*/; // how a step begins

function textNodes(text) {
  const made = [];
  let plain = "";
  let at = 0;
  const add = (node, length) => {
    made.push(plain, node);
    plain = "";
    at += length;
  };
  while (at < text.length) {
    const next = text.slice(at).search(/[<$\\]/);
    if (next < 0) {
      break;
    }
    plain += text.slice(at, at + next);
    at += next;
    const mark = text[at] === "<" ? MARK.exec(text.slice(at, at + 16)) : null;
    const formula = text[at] === "<" ? null : formulaAt(text, at);
    if (mark !== null && mark.index === 0) {
      add(element("span", { class: "mark" }, `image ${mark[1]}`.trim()), mark[0].length);
    } else if (formula !== null) {
      add(formula.node, formula.length);
    } else {
      plain += text[at];
      at += 1;
    }
  }
  made.push(plain + text.slice(at));
  return made.filter((part) => part !== "");
}

// The text of a step; its tag becomes a chip.
function stepNodes(text) {
  const tag = TAG.exec(text);
  if (tag === null) {
    return textNodes(text);
  }
  return [element("span", { class: `tag is-${tag[1]}` }, tag[1]), " ", ...textNodes(text.slice(tag[0].length))];
}

// An answer: as a formula if all of it is one.
function answerNodes(text) {
  if (/[\\^_]/.test(text)) {
    const formula = mathElement(text, false, true);
    if (formula !== null) {
      return [formula];
    }
  }
  return textNodes(text);
}

const NAMES = inPage("names");
const nameOf = (method) => (Object.hasOwn(NAMES, method) ? NAMES[method] : asWords(method));
const asWords = (name) => name.replaceAll("_", " ");
const counted = (number) => number.toLocaleString("en");
