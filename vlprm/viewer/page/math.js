// LaTeX of school mathematics as MathML: fractions, roots, powers, indices, Greek letters, common signs. What it does
// not know it leaves alone: the reader then sees the LaTeX as it was written.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const LONGEST = 2000; // characters of a formula that is read
const DEEPEST = 30; // groups inside one another

const LETTERS = {
  alpha: "α", beta: "β", gamma: "γ", delta: "δ", epsilon: "ϵ", varepsilon: "ε", zeta: "ζ", eta: "η", theta: "θ",
  vartheta: "ϑ", iota: "ι", kappa: "κ", lambda: "λ", mu: "μ", nu: "ν", xi: "ξ", pi: "π", rho: "ρ", sigma: "σ", tau: "τ",
  upsilon: "υ", phi: "ϕ", varphi: "φ", chi: "χ", psi: "ψ", omega: "ω", Gamma: "Γ", Delta: "Δ", Theta: "Θ", Lambda: "Λ",
  Xi: "Ξ", Pi: "Π", Sigma: "Σ", Phi: "Φ", Psi: "Ψ", Omega: "Ω", infty: "∞", ell: "ℓ", emptyset: "∅", degree: "°",
  ldots: "…", cdots: "⋯", dots: "…", vdots: "⋮", prime: "′", circ: "∘", square: "□",
};
const SIGNS = {
  times: "×", cdot: "⋅", div: "÷", pm: "±", mp: "∓", le: "≤", leq: "≤", leqslant: "≤", ge: "≥", geq: "≥", geqslant: "≥",
  lt: "<", gt: ">", ne: "≠", neq: "≠", approx: "≈", equiv: "≡", sim: "∼", cong: "≅", propto: "∝", in: "∈", notin: "∉",
  subset: "⊂", subseteq: "⊆", cup: "∪", cap: "∩", setminus: "∖", to: "→", rightarrow: "→", Rightarrow: "⇒",
  implies: "⟹", leftarrow: "←", Leftrightarrow: "⇔", iff: "⟺", mapsto: "↦", angle: "∠", triangle: "△", perp: "⊥",
  parallel: "∥", mid: "∣", cdotp: "⋅", ast: "∗", star: "⋆", forall: "∀", exists: "∃", neg: "¬", land: "∧", lor: "∨",
  therefore: "∴", because: "∵", sum: "∑", prod: "∏", int: "∫", partial: "∂", nabla: "∇", lfloor: "⌊", rfloor: "⌋",
  lceil: "⌈", rceil: "⌉", langle: "⟨", rangle: "⟩", "{": "{", "}": "}", "%": "%", "$": "$", "#": "#", "&": "&", "_": "_",
};
const FUNCTIONS = new Set(["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "lg", "exp",
  "lim", "max", "min", "gcd", "det", "deg", "mod"]);
const SPACES = { ",": ".17em", ":": ".22em", ";": ".28em", " ": ".3em", quad: "1em", qquad: "2em", "!": "0" };
const ACCENTS = { overline: "‾", bar: "‾", vec: "→", overrightarrow: "→", hat: "^", widehat: "^", tilde: "~" };
const STYLES = { mathbf: "bold", boldsymbol: "bold", mathrm: "upright", operatorname: "upright", mathit: "", boxed: "boxed" };
const IGNORED = new Set(["displaystyle", "textstyle", "limits", "nolimits", "big", "Big", "bigg", "Bigg"]);

const math = (tag, attributes, ...children) => {
  const made = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) {
    made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

// The formula that begins at this place of a text: its element and its length; null if there is none.
function formulaAt(text, at) {
  for (const [open, close, block] of [["$$", "$$", true], ["\\[", "\\]", true], ["\\(", "\\)", false], ["$", "$", false]]) {
    if (text.startsWith(open, at)) {
      const rest = text.slice(at + open.length, at + open.length + LONGEST);
      const end = rest.indexOf(close);
      const inner = rest.slice(0, end);
      const isMoney = open === "$" && (/^\s|\s$|\n/.test(inner) || /\d/.test(rest[end + 1] ?? ""));
      const node = end < 0 || isMoney ? null : mathElement(inner, block);
      return node === null ? null : { node, length: open.length + end + close.length };
    }
  }
  if (!/^\\(boxed|[dt]?frac|sqrt)[{[]/.test(text.slice(at, at + 8))) {
    return null;
  }
  const reader = { text: text.slice(at, at + LONGEST), at: 0, depth: 0 };
  try {
    const node = wrapped([group(reader)], false);
    return { node, length: reader.at };
  } catch {
    return null;
  }
}

// A formula as an element; null if it cannot be read in full.
function mathElement(latex, block, large = block) {
  const reader = { text: latex.trim(), at: 0, depth: 0 };
  if (reader.text === "" || reader.text.length > LONGEST) {
    return null;
  }
  try {
    const nodes = sequence(reader, () => false);
    const made = wrapped(nodes, block);
    made.setAttribute("displaystyle", large);
    return made;
  } catch {
    return null;
  }
}

const wrapped = (nodes, block) => math("math", block ? { display: "block" } : {}, math("mrow", {}, ...nodes));

// What follows, until `ends` says so, or the end of the text.
function sequence(reader, ends) {
  reader.depth += 1;
  const made = [];
  for (;;) {
    skipSpace(reader);
    if (ends(reader) || reader.at >= reader.text.length) {
      if (reader.at >= reader.text.length && ends(null)) {
        throw new Error("a bracket stays open");
      }
      reader.depth -= 1;
      return made;
    }
    made.push(scripted(reader));
  }
}

function scripted(reader) {
  const base = "^_".includes(reader.text[reader.at]) ? math("mrow", {}) : group(reader);
  const parts = {};
  for (skipSpace(reader); "^_'".includes(reader.text[reader.at] ?? " "); skipSpace(reader)) {
    const sign = reader.text[reader.at];
    reader.at += 1;
    skipSpace(reader);
    const name = sign === "_" ? "_" : "^";
    if (name in parts) {
      throw new Error("two powers");
    }
    parts[name] = sign === "'" ? math("mo", {}, "′") : argument(reader);
  }
  const { _: low, "^": high } = parts;
  if (low && high) {
    return math("msubsup", {}, base, low, high);
  }
  return low ? math("msub", {}, base, low) : high ? math("msup", {}, base, high) : base;
}

// What a power or a fraction takes: one group, or one character.
function argument(reader) {
  reader.depth += 1;
  const made = group(reader, /^\d/);
  reader.depth -= 1;
  return made;
}

function group(reader, numerals = /^\d+(?:,\d{3}(?!\d))*(?:\.\d+)?/) {
  skipSpace(reader);
  const sign = reader.text[reader.at];
  if (sign === undefined || "}&$".includes(sign) || reader.depth > DEEPEST) {
    throw new Error("something is missing, or too much is nested");
  }
  if (sign === "{") {
    return math("mrow", {}, ...braced(reader));
  }
  if (sign === "\\") {
    return command(reader);
  }
  const numeral = numerals.exec(reader.text.slice(reader.at));
  if (numeral !== null) {
    reader.at += numeral[0].length;
    return math("mn", {}, numeral[0]);
  }
  const letter = String.fromCodePoint(reader.text.codePointAt(reader.at));
  reader.at += letter.length;
  if (/\p{L}/u.test(letter)) {
    return math("mi", {}, letter);
  }
  return math("mo", "|/".includes(letter) ? { stretchy: "false" } : {}, letter === "-" ? "−" : letter);
}

function braced(reader) {
  reader.at += 1;
  const made = sequence(reader, (now) => now === null || now.text[now.at] === "}");
  reader.at += 1;
  return made;
}

// The text between braces, as it is.
function rawBraced(reader) {
  skipSpace(reader);
  const found = /^\{([^{}\\$]*)\}/.exec(reader.text.slice(reader.at));
  if (found === null) {
    throw new Error("no text");
  }
  reader.at += found[0].length;
  return found[1];
}

function command(reader) {
  const [all, name] = /^\\([A-Za-z]+|[^A-Za-z])/.exec(reader.text.slice(reader.at)) ?? [];
  if (all === undefined) {
    throw new Error("a lone backslash");
  }
  reader.at += all.length;
  if (Object.hasOwn(LETTERS, name)) {
    return math("mi", { mathvariant: "normal" }, LETTERS[name]);
  }
  if (Object.hasOwn(SIGNS, name)) {
    return math("mo", {}, SIGNS[name]);
  }
  if (FUNCTIONS.has(name)) {
    return math("mi", {}, name);
  }
  if (Object.hasOwn(SPACES, name)) {
    return math("mspace", { width: SPACES[name] });
  }
  if (Object.hasOwn(ACCENTS, name)) {
    return math("mover", { accent: "true" }, argument(reader), math("mo", {}, ACCENTS[name]));
  }
  if (Object.hasOwn(STYLES, name)) {
    return math("mrow", { class: STYLES[name] }, argument(reader));
  }
  return IGNORED.has(name) ? math("mrow", {}) : structure(reader, name);
}

function structure(reader, name) {
  if (/^[dtc]?frac$/.test(name)) {
    return math("mfrac", {}, argument(reader), argument(reader));
  }
  if (/^[dt]?binom$/.test(name)) {
    const inner = math("mfrac", { linethickness: "0" }, argument(reader), argument(reader));
    return math("mrow", {}, math("mo", {}, "("), inner, math("mo", {}, ")"));
  }
  if (name === "sqrt") {
    skipSpace(reader);
    if (reader.text[reader.at] !== "[") {
      return math("msqrt", {}, argument(reader));
    }
    reader.at += 1;
    const degree = sequence(reader, (now) => now === null || now.text[now.at] === "]");
    reader.at += 1;
    return math("mroot", {}, argument(reader), math("mrow", {}, ...degree));
  }
  if (["text", "textbf", "mbox", "textrm"].includes(name)) {
    return math("mtext", {}, rawBraced(reader));
  }
  if (name === "left") {
    const open = fence(reader);
    const inner = sequence(reader, (now) => now === null || /^\\right(?![A-Za-z])/.test(now.text.slice(now.at, now.at + 7)));
    reader.at += "\\right".length;
    return math("mrow", {}, open, ...inner, fence(reader));
  }
  throw new Error(`\\${name} is not known here`);
}

function fence(reader) {
  skipSpace(reader);
  const sign = reader.text[reader.at];
  if (sign === ".") {
    reader.at += 1;
    return math("mrow", {});
  }
  if (!/^[()[\]|/]$|^\\$/.test(sign ?? "")) {
    throw new Error("no bracket");
  }
  const made = sign === "\\" ? command(reader) : group(reader);
  made.setAttribute("stretchy", "true");
  return made;
}

function skipSpace(reader) {
  while (/[\s~]/.test(reader.text[reader.at] ?? "x")) {
    reader.at += 1;
  }
}
