// Which endpoint the page talks to: the local one that serves it, or a deployed one, whose id and key stay in this browser.

import { find } from "./dom.js";
import { Endpoint } from "./endpoint.js";
import { BROWSER, forgetText, keepText, recallText, TAB } from "./storage.js";

const KEPT = "playground-endpoint";
const ID = /^[A-Za-z0-9_-]{1,100}$/;
const LOCAL_ID = "local";

/** The id and key that were given before, and those of the address that the local endpoint prints. */
function recall() {
  const key = readFragment();
  if (key) {
    const local = { local: true, id: LOCAL_ID, key };
    keepText(TAB, KEPT, JSON.stringify(local)); // what the browser remembers stays for other tabs
    return local;
  }
  for (const place of [TAB, BROWSER]) {
    try {
      const kept = JSON.parse(recallText(place, KEPT));
      if (kept && ID.test(kept.id) && typeof kept.key === "string") return { ...kept, remember: place === BROWSER };
    } catch {
      forgetText(place, KEPT);
    }
  }
  return null;
}

/** The local key behind the # of the address, which is then taken out of it. */
function readFragment() {
  const fragment = location.hash.slice(1);
  if (!fragment || fragment === "stage") return "";
  history.replaceState(null, "", location.pathname);
  try {
    return decodeURIComponent(fragment);
  } catch {
    return "";
  }
}

function keep({ local, id, key, remember }) {
  forget();
  keepText(remember ? BROWSER : TAB, KEPT, JSON.stringify({ local, id, key }));
}

const forget = () => [BROWSER, TAB].forEach((place) => forgetText(place, KEPT));

/** Wires the form that asks for them. `onconnect(endpoint, asked)` hears of each endpoint that is chosen. */
export function wireConnection(form, onconnect) {
  const { where, id, key, remember } = form.elements;
  const [problem, told] = [find("#connection-problem"), find("#connection-told")];
  const keys = { local: "", runpod: "" };
  let shown = where.value;
  const show = () => {
    keys[shown] = key.value;
    shown = where.value;
    key.value = keys[shown];
    find("#endpoint-id", form).hidden = shown === "local";
  };
  for (const one of where) one.addEventListener("change", () => (show(), explain("")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const local = where.value === "local";
    const given = { local, id: local ? LOCAL_ID : id.value.trim(), key: key.value.trim(), remember: remember.checked };
    if (!ID.test(given.id)) return explain("An endpoint's id has letters, digits and hyphens, such as abc123def456.", id);
    if (!/^[!-~]+$/.test(given.key)) return explain("A key has visible ASCII letters, without spaces.", key);
    explain("");
    keep(given);
    onconnect(new Endpoint(given), true);
  });
  find("#forget", form).addEventListener("click", () => {
    forget();
    id.value = key.value = keys.local = keys.runpod = "";
    remember.checked = false;
    explain("Id and key are forgotten.");
  });

  function explain(text, control) {
    tell("");
    problem.textContent = text;
    for (const one of [id, key]) one.removeAttribute("aria-invalid");
    if (!control) return;
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }

  /** Says how far the connecting is; not aloud, which the page does. */
  function tell(text) {
    told.textContent = text;
  }

  /** Fills the form in with what is known, and connects if that is enough. */
  function start() {
    const known = recall();
    if (!known) return void show();
    where.value = known.local ? "local" : "runpod";
    show();
    id.value = known.local ? "" : known.id;
    key.value = known.key;
    remember.checked = known.remember === true;
    onconnect(new Endpoint(known), false);
  }
  return { start, tell, explain: (text) => explain(text, key) };
}
