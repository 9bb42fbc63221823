// Light and dark: as the system has it, unless the switch says otherwise. The choice is kept in this browser.

import { BROWSER, keepText, recallText } from "./storage.js";

const KEY = "playground-theme";
const THEMES = ["auto", "light", "dark"];

/** Makes a switch of this button. */
export function wireTheme(button) {
  const kept = recallText(BROWSER, KEY);
  let theme = THEMES.includes(kept) ? kept : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    keepText(BROWSER, KEY, theme);
    show();
  });
  show();
}
