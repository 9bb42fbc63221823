// The dialog that shows the request as code, and copies it.

import { announce } from "./announce.js";
import { find, openDialog } from "./dom.js";
import { LANGUAGES } from "./snippets.js";

const NOWHERE = { url: "https://api.runpod.ai/v2/ENDPOINT_ID" };

/** Wires the dialog; `ask` gives the endpoint and the input. Returns open(). */
export function wireSnippets(dialog, ask) {
  const [code, language] = [find("#snippet", dialog), find("#language", dialog)];
  const show = () => {
    const { endpoint, input } = ask();
    code.textContent = LANGUAGES[language.value](endpoint ?? NOWHERE, input);
  };
  language.addEventListener("change", show);
  find("#snippet-copy", dialog).addEventListener("click", async () => {
    const copied = await navigator.clipboard.writeText(code.textContent).then(() => true, () => false);
    if (!copied) getSelection().selectAllChildren(code);
    const told = copied ? `Copied as ${language.value}` : "Selected; copy it with Ctrl+C";
    find("#snippet-told", dialog).textContent = told;
    announce(told);
  });
  find("#snippet-close", dialog).addEventListener("click", () => dialog.close());
  return () => {
    find("#snippet-told", dialog).textContent = "";
    show();
    openDialog(dialog);
  };
}
