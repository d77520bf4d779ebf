// Where the data of the page is: in elements of the page, or, where those are absent, with the server of
// vlprm.viewer.serve that sent the page. Nothing else asks which it is.
"use strict";

const CHUNK = 2000; // facts in one answer of the server

const inPage = (name) => JSON.parse(document.getElementById(name).textContent);
const isInPage = document.getElementById("facts") !== null;

// Calls `take` with the facts of problems, in order, as they come.
async function readFacts(total, take) {
  if (isInPage) {
    take(inPage("facts"));
    return;
  }
  for (let from = 0; from < total; from += CHUNK) {
    take(await fetched(`facts?from=${from}&count=${CHUNK}`));
  }
}

async function readProblem(at) {
  return isInPage ? inPage(`problem-${at}`) : fetched(`problem?at=${at}`);
}

// The address of a problem's image; small ones are enough for the list.
function imageAddress(at, index, key, small) {
  if (isInPage) {
    return inPage(`image-${key}`);
  }
  return `image?at=${at}&index=${index}&small=${small ? 1 : 0}`;
}

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) {
    throw new Error(await answer.text());
  }
  return answer.json();
}

